"""Data sets that TFDS prepared arrive as they are, without TensorFlow; mistakes are named."""

import json
import os
import re
import shlex
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from seenn_jax.data import Batches, load_dataset, load_streamed, records
from seenn_jax.data.images import Framing
from seenn_jax.errors import UserError
from tests.data import tiny
from tests.data.listed import some
from tests.data.tiny import contents, expected, numbered, picture, png, prepare

pytestmark = pytest.mark.usefixtures("data_dir")


def test_every_pixel_and_label_arrives(data_dir):
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


def test_more_records_than_are_read_at_once(data_dir, monkeypatch):
    monkeypatch.setattr(records, "_CHUNK", 3)
    train = numbered(range(11))
    prepare(data_dir, {"train": train, "test": train[:4]})
    dataset = load_dataset("tiny", validation=1)
    assert contents(dataset.train, dataset.validation) == expected(train)


def test_gray_images_keep_their_channel(data_dir):
    train = numbered(range(8), (4, 4, 1), classes=2)
    prepare(data_dir, {"train": train, "test": train[:2]}, classes=2)
    dataset = load_dataset("tiny", validation=2)
    assert dataset.train.images.shape == (6, 4, 4, 1)
    assert dataset.num_classes == 2
    assert contents(dataset.train, dataset.validation) == expected(train)


def test_a_fresh_process_decodes_in_silence_and_the_next_needs_no_tfds(data_dir, run_twice):
    prepare(data_dir, {"train": numbered(range(9)), "test": numbered(range(2))})
    script = (
        "import sys; from seenn_jax.data.sources import load_dataset;"
        "d = load_dataset('tiny', validation=3);"
        "print('tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules,"
        "      d.train.images.sum(), d.train.labels)"
    )
    first, second = run_twice(script)
    assert first.stderr == second.stderr == ""  # TFDS's advice to install OpenCV is held back.
    assert first.stdout.startswith("True False")
    assert second.stdout.startswith("False False")
    assert first.stdout.split()[2:] == second.stdout.split()[2:]


def test_highest_version_by_number_or_the_one_named(data_dir):
    for i, version in enumerate(("1.9.0", "1.10.0", "1.2.3")):
        pairs = numbered(range(10 * i, 10 * i + 3))
        prepare(data_dir, {"train": pairs, "test": pairs}, version=version)
    (data_dir / "tiny" / "2.0.0").mkdir()  # Not prepared: no dataset_info.json.
    assert contents(load_dataset("tiny", validation=1).test) == expected(numbered((10, 11, 12)))
    named = load_dataset("tiny:1.2.3", validation=1)
    assert contents(named.test) == expected(numbered((20, 21, 22)))
    with pytest.raises(UserError, match=r"3\.0\.0/dataset_info\.json.*1\.10\.0, 1\.2\.3"):
        load_dataset("tiny:3.0.0", validation=1)


def test_configuration(data_dir):
    pairs = numbered(range(4))
    prepare(data_dir, {"train": pairs, "test": pairs}, config="5x6")
    assert contents(load_dataset("tiny/5x6", validation=1).test) == expected(pairs)
    with pytest.raises(UserError, match=r"holds 5x6\)"):
        load_dataset("tiny", validation=1)


def test_data_dir_comes_before_the_environment(tmp_path):
    pairs = numbered(range(4))
    prepare(tmp_path / "elsewhere", {"train": pairs, "test": pairs})
    dataset = load_dataset("tiny", data_dir=str(tmp_path / "elsewhere"), validation=1)
    assert contents(dataset.test) == expected(pairs)


@pytest.mark.parametrize("unlabelled", [True, False])
def test_validation_is_the_test_split_where_there_is_no_labelled_one(data_dir, unlabelled):
    splits = {"train": numbered(range(6)), "validation": numbered(range(6, 9))}
    if unlabelled:
        splits["test"] = [(picture(i), -1) for i in range(9, 12)]
    prepare(data_dir, splits)
    assert contents(load_dataset("tiny", validation=1).test) == expected(splits["validation"])


def test_the_command_that_is_given_prepares(data_dir):
    class Offered(tfds.core.GeneratorBasedBuilder):
        """A data set that TFDS knows by its name, and that needs no network."""

        # As those of TFDS itself: it looks for files beside their code, by importlib_resources.
        __module__ = "tensorflow_datasets.offered.offered"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(5, 6, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(num_classes=4),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(range(6)),
                "test": self._generate_examples(range(6, 8)),
            }

        def _generate_examples(self, numbers):
            for i, (image, label) in zip(numbers, numbered(numbers), strict=True):
                yield i, {"image": png(image), "label": label}

    (data_dir / "offered").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        load_dataset("offered", data_dir=str(data_dir), validation=1)
    command = re.search("`(python .*?)`", str(caught.value))[1]
    python, flag, code = shlex.split(command)
    assert (python, flag) == ("python", "-c")
    exec(code, {})
    dataset = load_dataset("offered", data_dir=str(data_dir), validation=1)
    assert contents(dataset.test) == expected(numbered(range(6, 8)))


class TestMistakes:
    def test_unknown_name(self):
        with pytest.raises(
            UserError, match=r"unknown data set 'cifar11'.*a folder that is there.*cifar10"
        ):
            load_dataset("cifar11", validation=1)

    @pytest.mark.parametrize("name", ["", "cifar10/", "cifar10:3", "a/../b"])
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


class TestDamage:
    """Files that rot: one sentence, or the rest of the data."""

    @pytest.fixture
    def folder(self, data_dir):
        return prepare(data_dir, {"train": numbered(range(30)), "test": numbered(range(4))})

    def test_a_flipped_bit_in_a_record(self, folder, caplog):
        flip(next(folder.glob("*train*")), b"\x89PNG")
        match = r"image number 0 of 'tiny' can't be read \(.*mismatch.*config\.data\.skip_corrupt"
        with pytest.raises(UserError, match=match):
            load_dataset("tiny", validation=2)
        dataset = load_dataset("tiny", validation=2, skip_corrupt=True)
        assert dataset.train.size + dataset.validation.size == 29
        assert "1 of 30 images are corrupt and left out" in caplog.text

    def test_a_flipped_bit_in_a_streamed_record(self, folder, caplog):
        flip(next(folder.glob("*test*")), b"\x89PNG")
        ways = {"framing": Framing(4), "validation": 2}
        whole = load_streamed("tiny", **ways).test
        with pytest.raises(UserError, match="image number 0 of 'tiny' can't be read"):
            whole.images[:]
        with pytest.raises(UserError, match="image number 0 of 'tiny' can't be read"):
            np.asarray(whole.labels)
        rest = load_streamed("tiny", **ways, skip_corrupt=True).test
        assert len(rest.images[:]) == len(rest.labels) == 3
        assert "1 of 4 images are corrupt and left out" in caplog.text
        shown = some(Batches(rest, 4, seed=0, workers=0), 1)[0][1]
        assert sorted(set(shown.tolist())) == sorted(rest.labels.tolist())

    @pytest.mark.parametrize("skip_corrupt", [True, False])
    def test_a_record_that_is_no_image(self, data_dir, caplog, monkeypatch, skip_corrupt):
        pairs = numbered(range(6))
        real, bad = png, pairs[3][0]
        with monkeypatch.context() as patch:
            eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
            patch.setattr(tiny, "png", lambda image: eps if image is bad else real(image))
            prepare(data_dir, {"train": pairs, "test": pairs[:2]})
        if not skip_corrupt:
            with pytest.raises(UserError, match=r"image 3/number \d .*it is no JPEG, PNG, BMP"):
                load_dataset("tiny", validation=1)
            return
        for _ in range(2):  # said each time
            caplog.clear()
            dataset = load_dataset("tiny", validation=1, skip_corrupt=True)
            left = expected(pairs[:3] + pairs[4:])
            assert contents(dataset.train, dataset.validation) == left
            assert "1 of 6 images are corrupt and left out" in caplog.text

    @pytest.mark.parametrize(
        ("file", "old", "new", "why"),
        [
            ("dataset_info.json", b"{", b"", r"dataset_info\.json is damaged \(Expecting|Extra"),
            ("dataset_info.json", b'"30"', b'"29"', "has 30 records, and .*json says 29"),
            ("dataset_info.json", b'"30"', b'"31"', "has 30 records, and .*json says 31"),
            ("dataset_info.json", b'"splits"', b'"spl"', "is damaged|has the splits"),
            ("dataset_info.json", b"{DATASET}-", b"{DATASET}+", "is damaged .*prepare it"),
            ("features.json", b"{", b"", "is damaged .*prepare it again with `python"),
            ("features.json", b"ClassLabel", b"ClassLabe1", "is damaged .*prepare it again"),
            ("features.json", b'"4"', b'"3"', "its label is 3, and there are 3 classes from 0"),
        ],
    )
    def test_json_files(self, folder, file, old, new, why):
        data = (folder / file).read_bytes()
        assert old in data
        (folder / file).write_bytes(data.replace(old, new))
        with pytest.raises(UserError, match=why):
            load_dataset("tiny", validation=2)

    def test_a_pipe(self, folder):
        file = next(folder.glob("*test*"))
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(UserError, match=r"tiny-test.* is no regular file"):
            load_dataset("tiny", validation=2)

    def test_a_file_that_is_cut(self, folder):
        file = next(folder.glob("*train*"))
        os.truncate(file, 1000)
        with pytest.raises(UserError, match=r"'tiny' in .* is damaged \(.*prepare it again"):
            load_dataset("tiny", validation=2)


def flip(path, before):
    """Flip a bit of the file, some bytes after these."""
    data = bytearray(path.read_bytes())
    data[data.index(before) + 40] ^= 1
    path.write_bytes(data)
