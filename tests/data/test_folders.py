import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenn_jax.data import Batches, load_dataset, load_streamed
from seenn_jax.data.folders import path_of
from seenn_jax.data.images import Framing, central_box, resized
from seenn_jax.errors import UserError
from tests.data.listed import some
from tests.data.tiny import numbered, prepare


def names(split):
    return [split.source[index].name for index in split.indices.tolist()]


class TestFolder:
    def test_train_and_val(self, folder):
        for path, count in (("train/cat", 4), ("train/dog", 3), ("val/cat", 1), ("val/dog", 2)):
            name = folder(path, count)
        dataset = load_streamed(name, framing=Framing(8), validation=2)
        assert dataset.num_classes == 2
        assert dataset.test.labels.tolist() == [0, 1, 1]
        assert names(dataset.test) == ["cat/00.JPEG", "dog/00.JPEG", "dog/01.JPEG"]
        assert (dataset.train.size, dataset.validation.size) == (5, 2)
        pool = names(dataset.train) + names(dataset.validation)
        assert sorted(pool) == [f"cat/0{i}.JPEG" for i in range(4)] + [
            f"dog/0{i}.JPEG" for i in range(3)
        ]
        again = load_streamed(name, framing=Framing(8), validation=2)
        assert names(again.validation) == names(dataset.validation)

    def test_test_goes_before_val(self, folder):
        for path, count in (("train/a", 2), ("val/a", 3), ("test/a", 4)):
            name = folder(path, count)
        assert load_streamed(name, framing=Framing(8), validation=1).test.size == 4

    def test_class_folders_alone(self, folder):
        folder("a", 10)
        name = folder("b/deeper", 6)
        dataset = load_streamed(name, framing=Framing(8), validation=4)
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
        dataset = load_streamed(name, framing=Framing(8), validation=1)
        assert dataset.num_classes == 2
        assert dataset.train.size + dataset.validation.size + dataset.test.size == 6

    def test_other_kinds_are_counted(self, folder, tmp_path, caplog):
        name = folder("train/a", 3)
        folder("test/a", 2)
        for path in ("train/a/notes.TXT", "train/a/more.txt", "test/a/x.gif", "test/a/README"):
            (tmp_path / path).write_text("no image")
        os.mkfifo(tmp_path / "train" / "a" / "pipe.jpg")
        (tmp_path / "train" / "a" / "broken.jpg").symlink_to(tmp_path / "nowhere")
        (tmp_path / "train" / "a" / "round.jpg").symlink_to(tmp_path / "train" / "a" / "round.jpg")
        dataset = load_streamed(name, framing=Framing(8), validation=1)
        assert dataset.train.size + dataset.validation.size + dataset.test.size == 5
        (said,) = caplog.messages
        assert said.startswith(f"{tmp_path}: left out 7 files that are no images by their kind (")
        for kind in ("3 no regular file", "2 .txt", "1 .gif", "1 without an extension"):
            assert kind in said

    def test_symlinks_are_followed(self, folder, tmp_path, caplog):
        folder("elsewhere/deep/deeper", 4)
        folder("images/a", 3)
        (tmp_path / "images" / "b").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "images" / "a" / "link.jpeg").symlink_to("00.JPEG")
        (tmp_path / "link").symlink_to("images")
        dataset = load_streamed(f"folder:{tmp_path}/link", framing=Framing(8), validation=1)
        found = sorted(n for split in dataset[1:4] for n in names(split))
        assert found == [f"a/0{i}.JPEG" for i in range(3)] + ["a/link.jpeg"] + [
            f"b/deep/deeper/0{i}.JPEG" for i in range(4)
        ]
        assert caplog.text == ""
        assert dataset.test.images[:].shape == (2, 8, 8, 3)

    def test_loops_are_left_out(self, folder, tmp_path, caplog):
        name = folder("a/deep", 3)
        folder("b", 2)
        (tmp_path / "a" / "deep" / "up").symlink_to(tmp_path / "a")
        (tmp_path / "b" / "all").symlink_to(tmp_path)
        (tmp_path / "b" / "more").symlink_to(tmp_path.parent)
        dataset = load_streamed(name, framing=Framing(8), validation=1)
        assert sum(split.size for split in dataset[1:4]) == 5
        assert sorted(caplog.messages) == [
            f"left out: {tmp_path}/{path} leads back to a folder that it lies in"
            for path in ("a/deep/up", "b/all", "b/more")
        ]

    def test_train_alone(self, folder):
        folder("train/a", 3)
        name = folder("train/b", 3)
        with pytest.raises(UserError, match="has train and none of test, val and validation: add"):
            load_streamed(name, framing=Framing(8), validation=1)
        assert load_streamed(f"{name}/train", framing=Framing(8), validation=1).num_classes == 2

    def test_a_class_folder_with_no_image(self, folder, tmp_path):
        name = folder("a", 3)
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=r"class folder .*/empty has no image \(.jpg, "):
            load_streamed(name, framing=Framing(8), validation=1)

    def test_different_classes(self, folder):
        folder("train/a", 3)
        folder("train/b", 3)
        name = folder("val/a", 2)
        with pytest.raises(UserError, match="same class folders, and 'b' is in one of them only"):
            load_streamed(name, framing=Framing(8), validation=1)

    def test_not_there(self, tmp_path):
        with pytest.raises(UserError, match="there is no such folder"):
            load_streamed(f"folder:{tmp_path}/nowhere", framing=Framing(8), validation=1)

    def test_no_class_folders(self, tmp_path):
        with pytest.raises(UserError, match="has no class folders"):
            load_streamed(f"folder:{tmp_path}", framing=Framing(8), validation=1)

    def test_a_file_that_is_gone(self, folder, tmp_path):
        name = folder("a", 5)
        dataset = load_streamed(name, framing=Framing(8), validation=1)
        (tmp_path / names(dataset.test)[0]).unlink()
        with pytest.raises(UserError, match=r"a/0\d\.JPEG can't be read \(No such file"):
            dataset.test.images[:]


class TestPath:
    @pytest.mark.parametrize("kind", ["absolute", "folder:", "./", "../", "~", "plain", "deep"])
    def test_says_the_same_as_folder(self, folder, tmp_path, data_dir, monkeypatch, kind):
        name = folder("images/a", 3)
        folder("images/b", 3)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        path = {
            "absolute": f"{tmp_path}/images",
            "folder:": "folder:images",
            "./": "./images",
            "../": f"../{tmp_path.name}/images",
            "~": "~/images",
            "plain": "images",
            "deep": "images/../images/",
        }[kind]
        found = load_streamed(path, framing=Framing(8), validation=2)
        same = load_streamed(f"{name}/images", framing=Framing(8), validation=2)
        assert found.name == path
        assert found.classes == same.classes == ("a", "b")
        for split, other in zip(found[1:4], same[1:4], strict=True):
            assert names(split) == names(other)
            np.testing.assert_array_equal(split.images[:], other.images[:])
        with pytest.raises(UserError, match=r"a folder, .*: set `config\.data\.image_size`=224"):
            load_dataset(path, validation=2)

    def test_a_data_set_goes_before_a_folder_of_its_name(
        self, folder, tmp_path, data_dir, monkeypatch
    ):
        for name in ("digits", "tiny"):
            folder(f"{name}/a", 3)
        monkeypatch.chdir(tmp_path)
        assert path_of("tiny", None) == Path("tiny")
        prepare(data_dir, {"train": numbered(range(4)), "test": numbered(range(3))})
        assert path_of("tiny", None) is None
        assert load_dataset("tiny", validation=1).test.size == 3
        assert load_dataset("digits", validation=1).num_classes == 10
        assert path_of("./tiny", None) == Path("tiny")

    def test_what_is_no_path(self, tmp_path, data_dir, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("", "images", "cifar10", "imagenet_resized/32x32"):
            assert path_of(name, None) is None


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
        dataset = load_streamed(
            "imagenet2012", framing=Framing(16), data_dir=str(imagenet), validation=3
        )
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
        dataset = load_streamed(
            "imagenet2012", framing=Framing(8), data_dir=str(tmp_path), validation=1
        )
        with pytest.raises(UserError, match="images without a label"):
            some(Batches(dataset.train, 3, seed=0, workers=0), 1)
