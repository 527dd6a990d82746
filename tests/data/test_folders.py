import numpy as np
import pytest
from PIL import Image

from seenn_jax.data import Batches, load_streamed
from seenn_jax.data.images import central_box, resized
from seenn_jax.errors import UserError
from tests.data.listed import some


def names(split):
    return [split.source[index].name for index in split.indices.tolist()]


class TestFolder:
    def test_train_and_val(self, folder):
        for path, count in (("train/cat", 4), ("train/dog", 3), ("val/cat", 1), ("val/dog", 2)):
            name = folder(path, count)
        dataset = load_streamed(name, side=8, validation=2)
        assert dataset.num_classes == 2
        assert dataset.test.labels.tolist() == [0, 1, 1]
        assert names(dataset.test) == ["cat/00.JPEG", "dog/00.JPEG", "dog/01.JPEG"]
        assert (dataset.train.size, dataset.validation.size) == (5, 2)
        pool = names(dataset.train) + names(dataset.validation)
        assert sorted(pool) == [f"cat/0{i}.JPEG" for i in range(4)] + [
            f"dog/0{i}.JPEG" for i in range(3)
        ]
        again = load_streamed(name, side=8, validation=2)
        assert names(again.validation) == names(dataset.validation)

    def test_test_goes_before_val(self, folder):
        for path, count in (("train/a", 2), ("val/a", 3), ("test/a", 4)):
            name = folder(path, count)
        assert load_streamed(name, side=8, validation=1).test.size == 4

    def test_class_folders_alone(self, folder):
        folder("a", 10)
        name = folder("b/deeper", 6)
        dataset = load_streamed(name, side=8, validation=4)
        test = names(dataset.test)
        assert dataset.test.labels.tolist() == [0, 0, 1, 1]  # every fifth, rounded up
        assert (dataset.train.size, dataset.validation.size) == (8, 4)
        assert not set(test) & set(names(dataset.train) + names(dataset.validation))
        assert test[-1].startswith("b/deeper/")

    def test_other_files_are_ignored(self, folder, tmp_path):
        name = folder("a", 3)
        folder("b", 3)
        folder(".hidden", 2)
        (tmp_path / "a" / "notes.txt").write_text("no image")
        (tmp_path / "a" / "._00.JPEG").write_text("no image")
        dataset = load_streamed(name, side=8, validation=1)
        assert dataset.num_classes == 2
        assert dataset.train.size + dataset.validation.size + dataset.test.size == 6

    def test_a_class_folder_with_no_image(self, folder, tmp_path):
        name = folder("a", 3)
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=r"class folder .*/empty has no image \(.jpg, "):
            load_streamed(name, side=8, validation=1)

    def test_different_classes(self, folder):
        folder("train/a", 3)
        folder("train/b", 3)
        name = folder("val/a", 2)
        with pytest.raises(UserError, match="same class folders, and 'b' is in one of them only"):
            load_streamed(name, side=8, validation=1)

    def test_not_there(self, tmp_path):
        with pytest.raises(UserError, match="there is no such folder"):
            load_streamed(f"folder:{tmp_path}/nowhere", side=8, validation=1)

    def test_no_class_folders(self, tmp_path):
        with pytest.raises(UserError, match="has no class folders"):
            load_streamed(f"folder:{tmp_path}", side=8, validation=1)

    def test_a_file_that_is_gone(self, folder, tmp_path):
        name = folder("a", 5)
        dataset = load_streamed(name, side=8, validation=1)
        (tmp_path / names(dataset.test)[0]).unlink()
        with pytest.raises(UserError, match=r"a/0\d\.JPEG can't be read \(it is empty or gone\)"):
            dataset.test.images[:]


class TestPrepared:
    @pytest.fixture
    def imagenet(self, tmp_path, prepare_official, picture, encoded):
        def rows(numbers, labelled=True):
            for i in numbers:
                label = 10 * i % 1000 if labelled else -1
                image = encoded(picture(i, 20 + i, 30))
                yield {"file_name": f"n{i}.JPEG", "image": image, "label": label}

        splits = {
            "train": rows(range(12)),
            "validation": rows(range(20, 24)),
            "test": rows(range(3), labelled=False),
        }
        prepare_official(tmp_path, "imagenet2012", splits)
        return tmp_path

    def test_imagenet_in_the_official_layout(self, imagenet, picture):
        assert (imagenet / "imagenet2012/5.1.0/features.json").is_file()
        dataset = load_streamed("imagenet2012", side=16, data_dir=str(imagenet), validation=3)
        assert dataset.num_classes == 1000
        # TFDS shuffles as it prepares; `test` has no labels, so `validation` is reported.
        assert sorted(dataset.test.labels) == [200, 210, 220, 230]
        pool = [*dataset.train.labels, *dataset.validation.labels]
        assert sorted(pool) == list(range(0, 120, 10))
        assert len(dataset.validation.labels) == 3
        for image, label in zip(dataset.test.images[:], dataset.test.labels, strict=True):
            number = label // 10
            original = Image.fromarray(picture(number, 20 + number, 30))
            expected = resized(original, central_box(*original.size, 16), 16)
            assert np.abs(image.astype(int) - expected).mean() < 5  # JPEG
        # Label 210 is the synset of German short-haired pointers.
        where = dataset.test.labels.tolist().index(210)
        assert dataset.test.source[where].name == "n02100236/n21.JPEG"

    def test_without_labels(self, tmp_path, prepare_official, picture, encoded):
        rows = [
            {"file_name": "x", "image": encoded(picture(i)), "label": label}
            for i, label in enumerate((1, 2, -1, -1))
        ]
        prepare_official(tmp_path, "imagenet2012", {"train": rows, "validation": rows[:2]})
        dataset = load_streamed("imagenet2012", side=8, data_dir=str(tmp_path), validation=1)
        with pytest.raises(UserError, match="images without a label"):
            some(Batches(dataset.train, 3, seed=0, workers=0), 1)
