import io
import itertools
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seenn_jax.data import sources
from seenn_jax.data.sources import load_dataset
from seenn_jax.errors import UserError

CIFAR10 = Path("~/tensorflow_datasets/cifar10").expanduser()


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    """An empty data folder and an empty cache folder, and no way to the user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def picture(number, shape=(5, 6, 3)):
    """An image that no other number has."""
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def numbered(numbers, shape=(5, 6, 3), classes=4):
    return [(picture(number, shape), number % classes) for number in numbers]


def png(image):
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def prepare(data_dir, splits, *, version="1.0.0", config=None, features=None, classes=4):
    """Let TFDS itself prepare a data set `tiny`, from images that need no TensorFlow to encode.

    `splits` maps a split's name to pairs of image and label.
    """
    channels = next(iter(splits.values()))[0][0].shape[-1]
    features = features or {
        "image": tfds.features.Image(shape=(None, None, channels), encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=classes),
    }

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(pairs) for split, pairs in splits.items()}

        def _generate_examples(self, pairs):
            for i, (image, label) in enumerate(pairs):
                yield i, dict(zip(features, (png(image), label), strict=True))

    tfds.disable_progress_bar()
    builder = Tiny(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def contents(*splits):
    """The set of (pixels, label) in these splits."""
    return {
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    }


def expected(pairs):
    return {(image.tobytes(), label) for image, label in pairs}


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in itertools.zip_longest(a, b))


class TestTfds:
    def test_every_pixel_and_label_arrives(self, data_dir):
        train, test = numbered(range(20)), numbered(range(20, 26))
        prepare(data_dir, {"train": train, "test": test})
        dataset = load_dataset("tiny", validation=5)
        assert dataset.name == "tiny"
        assert dataset.num_classes == 4
        assert dataset.train.images.shape == (15, 5, 6, 3)
        assert dataset.validation.images.shape == (5, 5, 6, 3)
        for split in dataset[1:4]:
            assert split.images.dtype == np.uint8
            assert split.labels.dtype == np.int32
        assert contents(dataset.train, dataset.validation) == expected(train)
        assert contents(dataset.test) == expected(test)

    def test_more_records_than_are_read_at_once(self, data_dir, monkeypatch):
        monkeypatch.setattr(sources, "_CHUNK", 3)
        train = numbered(range(11))
        prepare(data_dir, {"train": train, "test": train[:4]})
        dataset = load_dataset("tiny", validation=1)
        assert contents(dataset.train, dataset.validation) == expected(train)

    def test_gray_images_keep_their_channel(self, data_dir):
        train = numbered(range(8), (4, 4, 1), classes=2)
        prepare(data_dir, {"train": train, "test": train[:2]}, classes=2)
        dataset = load_dataset("tiny", validation=2)
        assert dataset.train.images.shape == (6, 4, 4, 1)
        assert dataset.num_classes == 2
        assert contents(dataset.train, dataset.validation) == expected(train)

    def test_a_fresh_process_decodes_in_silence_and_the_next_needs_no_tfds(self, data_dir):
        prepare(data_dir, {"train": numbered(range(9)), "test": numbered(range(2))})
        script = (
            "import sys; from seenn_jax.data.sources import load_dataset;"
            "d = load_dataset('tiny', validation=3);"
            "print('tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules,"
            "      d.train.images.sum(), d.train.labels)"
        )
        first, second = (
            subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
            for _ in range(2)
        )
        assert first.stderr == second.stderr == ""  # TFDS's advice to install OpenCV is held back.
        assert first.stdout.startswith("True False")
        assert second.stdout.startswith("False False")
        assert first.stdout.split()[2:] == second.stdout.split()[2:]

    def test_highest_version_by_number_or_the_one_named(self, data_dir):
        for i, version in enumerate(("1.9.0", "1.10.0", "1.2.3")):
            pairs = numbered(range(10 * i, 10 * i + 3))
            prepare(data_dir, {"train": pairs, "test": pairs}, version=version)
        (data_dir / "tiny" / "2.0.0").mkdir()  # Not prepared: no dataset_info.json.
        assert contents(load_dataset("tiny", validation=1).test) == expected(numbered((10, 11, 12)))
        named = load_dataset("tiny:1.2.3", validation=1)
        assert contents(named.test) == expected(numbered((20, 21, 22)))
        with pytest.raises(UserError, match=r"3\.0\.0/dataset_info\.json.*1\.10\.0, 1\.2\.3"):
            load_dataset("tiny:3.0.0", validation=1)

    def test_configuration(self, data_dir):
        pairs = numbered(range(4))
        prepare(data_dir, {"train": pairs, "test": pairs}, config="5x6")
        assert contents(load_dataset("tiny/5x6", validation=1).test) == expected(pairs)
        with pytest.raises(UserError, match=r"holds 5x6\)"):
            load_dataset("tiny", validation=1)

    def test_data_dir_comes_before_the_environment(self, tmp_path):
        pairs = numbered(range(4))
        prepare(tmp_path / "elsewhere", {"train": pairs, "test": pairs})
        dataset = load_dataset("tiny", data_dir=str(tmp_path / "elsewhere"), validation=1)
        assert contents(dataset.test) == expected(pairs)

    @pytest.mark.parametrize("unlabelled", [True, False])
    def test_validation_is_the_test_split_where_there_is_no_labelled_one(
        self, data_dir, unlabelled
    ):
        splits = {"train": numbered(range(6)), "validation": numbered(range(6, 9))}
        if unlabelled:
            splits["test"] = [(picture(i), -1) for i in range(9, 12)]
        prepare(data_dir, splits)
        assert contents(load_dataset("tiny", validation=1).test) == expected(splits["validation"])


class TestCache:
    @pytest.fixture
    def pairs(self, data_dir):
        pairs = numbered(range(7))
        prepare(data_dir, {"train": pairs, "test": pairs[:3]})
        return pairs

    def test_says_when_it_decodes_and_where_it_keeps(self, pairs, tmp_path, caplog):
        caplog.set_level(logging.INFO, logger="seenn_jax")
        load_dataset("tiny", validation=2)
        (kept,) = (tmp_path / "cache" / "seenn_jax").iterdir()
        assert "decoding tiny" in caplog.text
        assert str(kept) in caplog.text
        assert (kept / "train_images.npy").exists()
        caplog.clear()
        load_dataset("tiny", validation=2)
        assert caplog.text == ""

    def test_a_data_set_prepared_anew_is_decoded_anew(self, pairs, data_dir):
        load_dataset("tiny", validation=2)
        for file in (data_dir / "tiny" / "1.0.0").iterdir():
            file.unlink()
        (data_dir / "tiny" / "1.0.0").rmdir()
        other = numbered(range(50, 57))
        prepare(data_dir, {"train": other, "test": other[:3]})
        dataset = load_dataset("tiny", validation=2)
        assert contents(dataset.train, dataset.validation) == expected(other)

    @pytest.mark.parametrize(
        ("file", "left"),
        [("train_images.npy", 200), ("test_labels.npy", 0), ("info.json", 3), ("info.json", None)],
    )
    def test_damaged_files_are_replaced(self, pairs, tmp_path, caplog, file, left):
        first = load_dataset("tiny", validation=2)
        (kept,) = (tmp_path / "cache" / "seenn_jax").iterdir()
        if left is None:
            (kept / file).unlink()
        else:
            os.truncate(kept / file, left)
        second = load_dataset("tiny", validation=2)
        assert "damaged" in caplog.text
        assert equal(first.train, second.train)
        caplog.clear()
        load_dataset("tiny", validation=2)
        assert caplog.text == ""

    def test_an_interruption_leaves_nothing(self, pairs, tmp_path, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(sources.os, "replace", interrupt)
            with pytest.raises(KeyboardInterrupt):
                load_dataset("tiny", validation=2)
        assert list((tmp_path / "cache" / "seenn_jax").iterdir()) == []
        dataset = load_dataset("tiny", validation=2)
        assert contents(dataset.train, dataset.validation) == expected(pairs)

    def test_goes_on_where_nothing_can_be_kept(self, pairs, tmp_path, monkeypatch, caplog):
        (tmp_path / "file").write_text("not a folder")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        dataset = load_dataset("tiny", validation=2)
        assert contents(dataset.train, dataset.validation) == expected(pairs)
        assert "could not keep the decoded images" in caplog.text


class TestMistakes:
    def test_unknown_name(self):
        with pytest.raises(UserError, match=r"unknown data set 'cifar11'.*cifar10"):
            load_dataset("cifar11", validation=1)

    @pytest.mark.parametrize("name", ["", "../cifar10", "cifar10/", "cifar10:3", "a/../b"])
    def test_not_a_name(self, name):
        with pytest.raises(UserError, match="is not the name of a data set"):
            load_dataset(name, validation=1)

    def test_not_prepared(self, data_dir):
        with pytest.raises(UserError) as error:
            load_dataset("mnist", validation=1)
        message = str(error.value)
        assert str(data_dir / "mnist") in message
        assert "tfds.builder('mnist', file_format='array_record').download_and_prepare()" in message
        assert "TensorFlow" in message
        assert "configs/digits.py" in message

    def test_the_command_names_the_folder_given(self, tmp_path):
        with pytest.raises(UserError, match=r"data_dir='.*here'"):
            load_dataset("mnist", data_dir=str(tmp_path / "here"), validation=1)

    def test_tfrecord(self, data_dir):
        pairs = numbered(range(4))
        info = prepare(data_dir, {"train": pairs, "test": pairs}) / "dataset_info.json"
        changed = json.loads(info.read_text()) | {"fileFormat": "tfrecord"}
        info.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=r"as tfrecord.*delete.*file_format='array_record'"):
            load_dataset("tiny", validation=1)

    def test_other_features(self, data_dir):
        pairs = numbered(range(4))
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "age": tfds.features.Scalar(np.int64),
        }
        prepare(data_dir, {"train": pairs, "test": pairs}, features=features)
        with pytest.raises(UserError, match=r"features age \(Scalar\), image \(Image\)"):
            load_dataset("tiny", validation=1)

    def test_several_sizes(self, data_dir):
        pairs = [*numbered(range(4)), (picture(5, (7, 6, 3)), 0)]
        prepare(data_dir, {"train": pairs, "test": pairs[:2]})
        with pytest.raises(UserError, match=r"(5 x 6 x 3 and 7|7 x 6 x 3 and 5) x 6 x 3"):
            load_dataset("tiny", validation=1)

    def test_another_size_in_the_test_split(self, data_dir):
        prepare(
            data_dir, {"train": numbered(range(4)), "test": numbered(range(2), shape=(3, 3, 3))}
        )
        with pytest.raises(UserError, match="5 x 6 x 3 and 3 x 3 x 3"):
            load_dataset("tiny", validation=1)

    def test_no_test_split(self, data_dir):
        prepare(data_dir, {"train": numbered(range(4)), "extra": numbered(range(2))})
        with pytest.raises(UserError, match="splits train, extra"):
            load_dataset("tiny", validation=1)

    def test_training_images_without_a_label(self, data_dir):
        pairs = numbered(range(4))
        prepare(data_dir, {"train": [*pairs, (picture(9), -1)], "test": pairs})
        with pytest.raises(UserError, match="without a label"):
            load_dataset("tiny", validation=1)

    def test_array_record_is_missing(self, data_dir, monkeypatch):
        prepare(data_dir, {"train": numbered(range(4)), "test": numbered(range(2))})
        monkeypatch.setitem(sys.modules, "array_record.python.array_record_data_source", None)
        with pytest.raises(UserError, match="array_record is missing"):
            load_dataset("tiny", validation=1)

    @pytest.mark.parametrize("validation", [-1, 0, 1437, 9999])
    def test_validation_out_of_range(self, validation):
        with pytest.raises(UserError, match=rf"validation = {validation} .* hold out 1 to 1436"):
            load_dataset("digits", validation=validation)

    @pytest.mark.parametrize("test", [-1, 0, 361])
    def test_test_out_of_range(self, test):
        with pytest.raises(UserError, match=rf"test = {test} .* keep 1 to 360"):
            load_dataset("digits", validation=100, test=test)


class TestDigits:
    def test_sizes_and_scale(self):
        from sklearn.datasets import load_digits

        dataset = load_dataset("digits", validation=137)
        assert [len(split.labels) for split in dataset[1:4]] == [1300, 137, 360]
        assert dataset.train.images.shape == (1300, 8, 8, 1)
        assert dataset.num_classes == 10
        assert contents(*dataset[1:4]) == {
            (np.array([round(p * 255 / 16) for p in image], np.uint8).tobytes(), int(label))
            for image, label in zip(*load_digits(return_X_y=True), strict=True)
        }

    def test_a_fifth_of_each_class_is_for_testing(self):
        dataset = load_dataset("digits", validation=1)
        train, validation, test = (np.bincount(s.labels, minlength=10) for s in dataset[1:4])
        assert np.all(np.abs(test - (train + validation + test) / 5) <= 1)

    def test_the_seed_moves_validation_but_not_test(self):
        one, same, other = (load_dataset("digits", validation=200, seed=s) for s in (0, 0, 1))
        assert equal(one.validation, same.validation)
        assert equal(one.train, same.train)
        assert not equal(one.validation, other.validation)
        assert equal(one.test, other.test)

    def test_a_part_of_the_test_split(self):
        whole, part = (load_dataset("digits", validation=1, test=n) for n in (None, 50))
        assert len(part.test.labels) == 50
        assert contents(part.test) <= contents(whole.test)


def test_permutation_is_what_it_always_was():
    # PCG64(0) yields 11749869230777074271, 4976686463289251617, 755828109848996024, ...
    assert sources.permutation(3, seed=0).tolist() == [2, 1, 0]


@given(n=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_permutation_has_each_index_once(n, seed):
    assert np.array_equal(np.sort(sources.permutation(n, seed)), np.arange(n))


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.exists(), reason="cifar10 is not prepared")
def test_cifar10():
    first = load_dataset("cifar10", data_dir=str(CIFAR10.parent), validation=5000)
    start = time.perf_counter()
    second = load_dataset("cifar10", data_dir=str(CIFAR10.parent), validation=5000)
    assert time.perf_counter() - start < 2
    assert [split.images.shape for split in second[1:4]] == [
        (n, 32, 32, 3) for n in (45_000, 5_000, 10_000)
    ]
    assert second.num_classes == 10
    assert np.bincount(second.test.labels).tolist() == [1000] * 10
    for a, b in zip(first[1:4], second[1:4], strict=True):
        assert equal(a, b)
