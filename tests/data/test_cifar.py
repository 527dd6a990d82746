"""CIFAR is the same from whatever people have of it, and what is wrong with that is said."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seenn_jax.data import Split, cifar, load_dataset
from seenn_jax.errors import UserError
from tests.data.made_cifar import (
    ARCHIVES,
    EACH,
    FOLDERS,
    NAMES,
    binary_files,
    packed,
    pictures,
    python2,
    python3,
    python_files,
    unpacked,
)
from tests.data.test_pickles import Run
from tests.data.tiny import contents, equal, prepare

FORMS = [(make, form) for form in ("python", "binary") for make in (unpacked, packed)]


@pytest.fixture(autouse=True)
def _folders(data_dir):
    data_dir.mkdir()


def load(name="cifar10", **options):
    return load_dataset(name, validation=3, **options)


def expected(name, *batches):
    return {
        (image.tobytes(), label)
        for batch in batches
        for image, label in zip(*pictures(name)[batch], strict=True)
    }


def prepared(place, name, **changes):
    """What TFDS prepares of it; `changes` are other splits."""
    splits = {"train": [], "test": []}
    for batch, pairs in pictures(name).items():
        splits["test" if batch.startswith("test") else "train"] += zip(*pairs, strict=True)
    features = {
        "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=NAMES[name]),
    }
    return prepare(place, splits | changes, name=name, version="3.0.2", features=features)


class TestForms:
    @pytest.mark.parametrize("name", ["cifar10", "cifar100"])
    @pytest.mark.parametrize(("make", "form"), FORMS)
    def test_every_pixel_and_label_arrives(self, data_dir, name, make, form):
        make(data_dir, name, form)
        dataset = load(name)
        assert dataset.classes == tuple(NAMES[name])
        assert dataset.num_classes == len(NAMES[name])
        *train, test = pictures(name)
        assert dataset.train.images.shape == (5 * EACH - 3, 32, 32, 3)
        assert contents(dataset.train, dataset.validation) == expected(name, *train)
        assert contents(dataset.test) == expected(name, test)

    @pytest.mark.parametrize("name", ["cifar10", "cifar100"])
    def test_all_forms_are_one(self, tmp_path, name):
        found = {}
        for make, form in FORMS:
            place = tmp_path / f"{make.__name__}-{form}"
            place.mkdir()
            make(place, name, form)
            found[place.name] = load(name, data_dir=str(place))
        prepared(tmp_path / "tfds", name)
        found["tfds"] = load(name, data_dir=str(tmp_path / "tfds"))
        first = found.pop("tfds")
        for other in found.values():
            for split, same in zip(first[1:4], other[1:4], strict=True):
                assert equal(split, same)
            assert other.classes == first.classes

    def test_as_python_3_pickles_them(self, data_dir):
        unpacked(data_dir, "cifar10", "python", python_files("cifar10", python3))
        dataset = load()
        assert contents(dataset.test) == expected("cifar10", "test_batch")
        assert dataset.classes == tuple(NAMES["cifar10"])

    def test_an_archive_with_other_members(self, data_dir, tmp_path):
        folder = unpacked(tmp_path, "cifar10", "binary")
        with tarfile.open(data_dir / "cifar-10-binary.tar.gz", "w:gz") as tar:
            link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
            tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
            tar.add(folder, arcname=f"./{folder.name}")
        assert contents(load().test) == expected("cifar10", "test_batch")
        assert not (data_dir.parent / "outside").exists()


class TestOrder:
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12),
        st.randoms(use_true_random=False),
    )
    def test_depends_on_the_images_alone(self, pairs, random):
        def split(pairs):
            images = np.array([np.full((2, 2, 3), p) for p, _ in pairs], np.uint8)
            return Split(images.reshape(-1, 2, 2, 3), np.array([i for _, i in pairs], np.int32))

        shuffled = random.sample(pairs, len(pairs))
        one, other = cifar.by_content(split(pairs)), cifar.by_content(split(shuffled))
        assert equal(one, other)
        found = zip(one.images.max((1, 2, 3), initial=0), one.labels, strict=True)
        assert sorted(found) == sorted(pairs)


class TestPlaces:
    def test_tfds_comes_first(self, data_dir):
        info = prepared(data_dir, "cifar10", test=[(np.full((32, 32, 3), 9, np.uint8), 1)])
        packed(data_dir, "cifar10", "python")
        assert load().test.images.max() == 9
        info /= "dataset_info.json"
        text = info.read_text()
        assert "array_record" in text
        info.write_text(text.replace("array_record", "tfrecord"))  # which TensorFlow alone reads
        assert load().test.size == EACH

    def test_a_version_is_tfds_s(self, data_dir):
        packed(data_dir, "cifar10", "binary")
        with pytest.raises(UserError, match=r"data set 'cifar10:3\.0\.2' is not prepared"):
            load("cifar10:3.0.2")

    def test_data_dir_then_the_data_folder_then_the_cache(self, data_dir, tmp_path):
        def filled(place, value):
            place.mkdir(exist_ok=True, parents=True)
            files = binary_files("cifar10")
            files["test_batch.bin"] = (b"\1" + bytes([value]) * 3072) * EACH
            packed(place, "cifar10", "binary", files)

        asked = tmp_path / "asked"
        filled(tmp_path / "cache" / "seenn_jax", 3)
        assert load(data_dir=str(asked)).test.images.max() == 3
        filled(data_dir, 2)
        assert load(data_dir=str(asked)).test.images.max() == 2
        prepared(data_dir, "cifar10", test=[(np.full((32, 32, 3), 4, np.uint8), 1)])
        assert load(data_dir=str(asked)).test.images.max() == 4
        filled(asked, 1)
        assert load(data_dir=str(asked)).test.images.max() == 1
        assert load().test.images.max() == 4

    @pytest.mark.parametrize(("make", "form"), FORMS)
    def test_the_archive_itself_is_a_data_dir(self, tmp_path, make, form):
        path = make(tmp_path / "cache", "cifar10", form)
        assert load(data_dir=str(path)).test.size == EACH

    def test_what_is_nowhere(self, data_dir, tmp_path):
        with pytest.raises(UserError) as caught:
            load(data_dir=str(tmp_path / "asked"))
        for named in (
            "cifar10/<version>/",
            *(ARCHIVES["cifar10", form] for form in ("python", "binary")),
            *(FOLDERS["cifar10", form] for form in ("python", "binary")),
            *(str(place) for place in (tmp_path / "asked", data_dir, tmp_path / "cache")),
            "`config.data.download`=true",
            "configs/digits.py",
        ):
            assert named in str(caught.value)


class TestDownload:
    @pytest.fixture
    def home(self, serve, tmp_path, monkeypatch):
        """The folder of what passes for the home page."""
        folder = tmp_path / "home"
        folder.mkdir()
        monkeypatch.setattr(cifar, "HOME", f"{serve(folder)}/")
        return folder

    def test_to_the_cache_where_it_is_nowhere(self, home, tmp_path, monkeypatch):
        archive = packed(home, "cifar10", "binary")
        md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
        official = cifar.CIFARS["cifar10"]._replace(md5=md5)
        monkeypatch.setitem(cifar.CIFARS, "cifar10", official)
        dataset = load(download=True)
        assert contents(dataset.test) == expected("cifar10", "test_batch")
        kept = tmp_path / "cache" / "seenn_jax" / archive.name
        assert kept.read_bytes() == archive.read_bytes()
        archive.unlink()  # it is not asked for again
        assert equal(load(download=True).train, dataset.train)
        assert equal(load().train, dataset.train)

    def test_of_another_file_or_none(self, home, tmp_path):
        packed(home, "cifar10", "binary")
        with pytest.raises(UserError, match=f"and not {cifar.CIFARS['cifar10'].md5}, so that"):
            load(download=True)
        with pytest.raises(UserError, match=r"cifar-100-binary\.tar\.gz can't be fetched, .* 404"):
            load("cifar100", download=True)
        assert list((tmp_path / "cache" / "seenn_jax").iterdir()) == []

    def test_of_other_data_is_no_download(self):
        with pytest.raises(
            UserError, match=r"`config\.data\.download` is for cifar10 and cifar100"
        ):
            load("mnist", download=True)


class TestStart:
    def test_needs_no_tfds_and_the_second_one_decodes_nothing(self, data_dir, run_twice):
        packed(data_dir, "cifar10", "python")
        script = (
            "import logging, sys; logging.basicConfig(level=logging.INFO, format='%(message)s');"
            "from seenn_jax.data.sources import load_dataset;"
            "d = load_dataset('cifar10', validation=3);"
            "print({'tensorflow_datasets', 'tensorflow'} & {*sys.modules}, d.classes[2],"
            "      d.train.images.sum(), d.train.labels)"
        )
        first, second = run_twice(script)
        assert first.stderr.startswith("decoding cifar10 from ")
        assert second.stderr == ""
        assert first.stdout.startswith("set() bird ")
        assert first.stdout == second.stdout


def check_damaged(*named):
    with pytest.raises(UserError) as caught:
        load()
    for text in (*named, "fetch the archive again, or unpack it again"):
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


class TestDamage:
    @pytest.mark.parametrize("form", ["python", "binary"])
    @pytest.mark.parametrize("make", [unpacked, packed])
    def test_a_missing_batch(self, data_dir, make, form):
        files = python_files("cifar10") if form == "python" else binary_files("cifar10")
        (gone,) = (file for file in files if "data_batch_3" in file)
        del files[gone]
        path = make(data_dir, "cifar10", form, files)
        check_damaged(str(path), f"lacks {gone}")

    @pytest.mark.parametrize("left", [1, 1000, -3000, -4])
    def test_a_truncated_archive(self, data_dir, left):
        path = packed(data_dir, "cifar10", "binary")
        size = path.stat().st_size
        os.truncate(path, left % size)
        check_damaged(str(path))

    def test_a_flipped_bit_in_an_archive(self, data_dir):
        path = packed(data_dir, "cifar10", "binary")
        plain = bytearray(gzip.decompress(path.read_bytes()))
        plain[len(plain) // 2] ^= 1
        other = gzip.compress(bytes(plain))
        whole = path.read_bytes()
        path.write_bytes(other[:-8] + whole[-8:])  # with the checksum of what it was
        check_damaged(str(path), "CRC")

    @pytest.mark.parametrize(
        "data", [b"", b"no archive", gzip.compress(b"no tar")], ids=["empty", "text", "gzip"]
    )
    def test_what_is_no_archive(self, data_dir, data):
        path = data_dir / "cifar-10-python.tar.gz"
        path.write_bytes(data)
        check_damaged(str(path))

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda data: data[:-5], "bytes, which is no multiple of 3,073"),
            (lambda data: data[:-3073], f"it has {EACH - 1} images and test_batch.bin has {EACH}"),
            (lambda data: b"", f"it has 0 images and test_batch.bin has {EACH}"),
            (lambda data: b"\x0a" + data[1:], "it has the label 10, and there are 10 classes"),
        ],
    )
    def test_a_binary_batch(self, data_dir, change, why):
        files = binary_files("cifar10")
        files["data_batch_2.bin"] = change(files["data_batch_2.bin"])
        folder = unpacked(data_dir, "cifar10", "binary", files)
        check_damaged(f"{folder}/data_batch_2.bin", why)

    @pytest.mark.parametrize(
        ("batch", "why"),
        [
            ({"labels": [1]}, "it has no array 'data' and list 'labels'"),
            ({"data": np.zeros((2, 3072), np.uint8)}, "it has no array 'data'"),
            ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "[2, 3072] for 1 labels"),
            ({"data": np.zeros((2, 9), np.uint8), "labels": [1, 2]}, "[2, 9] for 2 labels"),
            ({"data": np.zeros((1, 3072), np.uint8), "labels": [-1]}, "it has the label -1"),
            ({"data": np.zeros((1, 3072), np.uint8), "labels": ["1"]}, "are no integers"),
            ([1], "it holds a list and no dict"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_python_batch(self, data_dir, batch, why):
        files = python_files("cifar10") | {"data_batch_2": python2(batch)}
        folder = unpacked(data_dir, "cifar10", "python", files)
        check_damaged(f"{folder}/data_batch_2", why)

    def test_a_harmful_python_batch_does_not_run(self, data_dir, tmp_path):
        mark = tmp_path / "mark"
        harmful = pickle.dumps({"data": Run(os.mkdir, str(mark))})
        packed(data_dir, "cifar10", "python", python_files("cifar10") | {"data_batch_1": harmful})
        check_damaged("cifar-10-python.tar.gz/data_batch_1", "asks for posix.mkdir")
        assert not mark.exists()

    def test_a_truncated_python_batch(self, data_dir):
        files = python_files("cifar10")
        files["test_batch"] = files["test_batch"][:5000]
        folder = unpacked(data_dir, "cifar10", "python", files)
        check_damaged(f"{folder}/test_batch")

    @pytest.mark.parametrize("form", ["python", "binary"])
    def test_names_of_other_classes(self, data_dir, form):
        names = NAMES["cifar10"][:9]
        if form == "python":
            files = python_files("cifar10") | {"batches.meta": python2({"label_names": names})}
        else:
            files = binary_files("cifar10") | {"batches.meta.txt": "\n".join(names).encode()}
        unpacked(data_dir, "cifar10", form, files)
        check_damaged("batches.meta", "it names 9 classes and not 10")


def test_pictures_are_what_they_are_taken_for(data_dir):
    """The first byte of a red plane is the red of the pixel above and left."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[0, 1] = (10, 20, 30)
    rows = b"\5" + image.transpose(2, 0, 1).tobytes()
    files = dict.fromkeys(binary_files("cifar10"), rows)
    files["batches.meta.txt"] = " ".join(NAMES["cifar10"]).encode()
    unpacked(data_dir, "cifar10", "binary", files)
    found = load_dataset("cifar10", validation=1).test
    np.testing.assert_array_equal(found.images[0], np.asarray(Image.fromarray(image)))
    assert found.labels.tolist() == [5]


@pytest.mark.slow
def test_the_real_one(monkeypatch):
    monkeypatch.undo()  # where this user has it
    if cifar.find("cifar10", None) is None:
        pytest.skip("cifar10 is not there")
    first = load_dataset("cifar10", validation=5000)
    start = time.perf_counter()
    second = load_dataset("cifar10", validation=5000)
    assert time.perf_counter() - start < 2
    assert [split.images.shape for split in second[1:4]] == [
        (n, 32, 32, 3) for n in (45_000, 5_000, 10_000)
    ]
    assert second.classes == tuple(NAMES["cifar10"])
    assert np.bincount(second.test.labels).tolist() == [1000] * 10
    for a, b in zip(first[1:4], second[1:4], strict=True):
        assert equal(a, b)
