import dataclasses
import itertools
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seenn_jax.data import streaming
from seenn_jax.data.streaming import (
    Batches,
    Corrupt,
    Record,
    Stream,
    central_box,
    decode,
    load_streamed,
    random_box,
    resized,
)
from seenn_jax.errors import UserError

sides = st.integers(1, 600)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A source of files in memory; the label of each is its number."""

    files: list[bytes]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return Record(self.files[index], int(index), f"class/{index}.jpg")

    def labels(self, indices):
        return np.array(indices, np.int32)


@pytest.fixture
def listed(picture, encoded):
    """`(count, numbers of truncated ones) -> source`."""

    def make(count, corrupt=()):
        files = [encoded(picture(i)) for i in range(count)]
        return Listed([f[: len(f) // 2] if i in corrupt else f for i, f in enumerate(files)])

    return make


def stream(source, *, side=8, skip_corrupt=False):
    return Stream(source, np.arange(len(source)), side, skip_corrupt)


def some(batches, count):
    """The first batches of an iterator, which is then closed."""
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


class TestEvaluationTransform:
    def test_500_by_375_by_hand(self):
        # The shorter side to 256, the other to 341.33, cut to 341; the middle 224 begin at
        # 58.5, rounded to the even 58, and at 16. In pixels of the original, times 500 / 341 and
        # 375 / 256.
        box = central_box(500, 375, 224)
        assert box == pytest.approx((85.044, 23.4375, 413.490, 351.5625), abs=1e-3)

    def test_no_resize_by_hand(self):
        # 8 pixels to 8 * 8 / 7 of 7: a window of 7 x 7 as it is.
        image = np.arange(16 * 8 * 3, dtype=np.uint8).reshape(8, 16, 3)
        box = central_box(16, 8, 7)
        assert box == (4, 0, 11, 7)
        np.testing.assert_array_equal(resized(Image.fromarray(image), box, 7), image[:7, 4:11])

    def test_two_pixels_to_one_by_hand(self):
        # Halved, a pixel weighs its neighbours 1, 3, 3, 1 eighths: in the middle of 16 columns of
        # 10 x, those of 7 (70, 80 near; 60, 90 far) give 75.
        image = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 16, 0)
        small = resized(Image.fromarray(image.repeat(3, 2)), central_box(16, 16, 7), 7)
        # The middle 7 of 8 begin at 0.5, rounded to 0.
        assert small[3, :, 0].tolist()[1:] == [25, 45, 65, 85, 105, 125]

    @given(width=sides, height=sides, seed=st.integers(0, 100))
    def test_is_a_resize_and_then_a_crop(self, width, height, seed):
        rng = np.random.default_rng(seed)
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        short = min(width, height)
        whole = image.resize(
            (max(32, width * 32 // short), max(32, height * 32 // short)),
            Image.Resampling.BILINEAR,
        )
        left, top = (round((length - 28) / 2) for length in whole.size)
        crop = np.asarray(whole.crop((left, top, left + 28, top + 28)))
        found = resized(image, central_box(width, height, 28), 28)
        # In one step and in two: rounded alike but for a few.
        assert np.abs(found.astype(int) - crop).max() <= 1


class TestRandomBox:
    @given(width=sides, height=sides, seed=st.integers(0, 1000))
    def test_lies_in_the_image(self, width, height, seed):
        left, top, right, bottom = random_box(np.random.default_rng(seed), width, height)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height

    def test_areas_and_shapes(self):
        rng = np.random.default_rng(0)
        boxes = np.array([random_box(rng, 400, 400) for _ in range(4000)])
        across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        share, ratio = across * down / 400**2, across / down
        assert share.min() == pytest.approx(0.08, abs=0.01)
        assert share.max() > 0.95
        assert ratio.min() == pytest.approx(3 / 4, abs=0.01)
        assert ratio.max() == pytest.approx(4 / 3, abs=0.01)
        # Uniform in [0.08, 1] but for the largest, which often do not fit: below 0.5 all do.
        small = share[share < 0.5]
        assert np.mean(small) == pytest.approx(0.29, abs=5 * 0.121 / np.sqrt(len(small)))
        places = boxes[:, 0] / np.maximum(400 - across, 1)
        assert np.mean(places) == pytest.approx(0.5, abs=0.03)

    def test_the_middle_of_what_is_too_long(self):
        # 10 high: 13.33 wide at most.
        assert random_box(np.random.default_rng(0), 1000, 10) == (493, 0, 506, 10)
        assert random_box(np.random.default_rng(0), 10, 1000) == (0, 493, 10, 506)


class TestDecode:
    def test_colours_are_kept(self, encoded):
        image = np.full((6, 5, 3), [200, 30, 60], np.uint8)
        record = Record(encoded(image, "PNG"), 0, "a/b.png")
        np.testing.assert_array_equal(decode(record), image)

    @pytest.mark.parametrize(
        ("mode", "format"),
        [
            ("L", "JPEG"),
            ("CMYK", "JPEG"),
            ("P", "PNG"),
            ("RGBA", "PNG"),
            ("1", "PNG"),
            ("LA", "PNG"),
        ],
    )
    def test_any_number_of_channels_becomes_rgb(self, encoded, picture, mode, format):
        image = Image.fromarray(picture(0)).convert(mode)
        found = decode(Record(encoded(image, format), 0, "a/b"))
        assert found.mode == "RGB"
        assert found.size == image.size
        difference = np.asarray(found, int) - np.asarray(image.convert("RGB"), int)
        assert np.abs(difference).mean() < 5  # JPEG

    def test_truncated(self, encoded, picture):
        data = encoded(picture(0, 60, 80))
        for length in (10, len(data) // 2, len(data) - 20):
            with pytest.raises(Corrupt, match=r"image dogs/1\.jpg can't be read"):
                decode(Record(data[:length], 0, "dogs/1.jpg"))

    def test_empty(self):
        with pytest.raises(Corrupt, match=r"dogs/1\.jpg can't be read \(it is empty or gone\)"):
            decode(Record(b"", 0, "dogs/1.jpg"))

    def test_sixteen_bits(self, encoded):
        image = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
        with pytest.raises(Corrupt, match="more than 8 bits a channel"):
            decode(Record(encoded(image, "PNG"), 0, "a/b.png"))


class TestStream:
    def test_is_like_an_array(self, listed):
        images = stream(listed(5)).images
        assert images.shape == (5, 8, 8, 3)
        assert (len(images), images.ndim, images.dtype) == (5, 4, np.uint8)
        whole = images[:]
        assert whole.shape == images.shape
        assert whole.dtype == np.uint8
        np.testing.assert_array_equal(images[1:3], whole[1:3])
        np.testing.assert_array_equal(images[np.array([4, 0])], whole[[4, 0]])
        np.testing.assert_array_equal(images[2], whole[2])
        assert images[5:].shape == (0, 8, 8, 3)

    def test_a_truncated_image_is_an_error_that_names_it(self, listed):
        with pytest.raises(UserError, match=r"class/2\.jpg .* --config\.data\.skip_corrupt=True"):
            stream(listed(4, corrupt=[2])).images[:]

    def test_or_is_left_out_and_counted(self, listed, caplog):
        source = listed(6, corrupt=[1, 4])
        split = stream(source, skip_corrupt=True)
        assert split.size == 6
        assert split.labels.tolist() == [0, 2, 3, 5]
        np.testing.assert_array_equal(split.images[:], stream(source).images[[0, 2, 3, 5]])
        assert "class/1.jpg" in caplog.text
        assert "2 of 6 images are corrupt and left out" in caplog.text


class TestBatches:
    def test_each_epoch_shows_each_image_once_in_an_order_of_its_own(self, listed):
        found = some(Batches(stream(listed(10)), 3, seed=0, workers=0), 9)
        assert all(images.shape == (3, 8, 8, 3) for images, _ in found)
        epochs = np.stack([labels for _, labels in found]).reshape(3, 9)
        assert all(len(set(epoch)) == 9 for epoch in epochs.tolist())
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3

    def test_pixels_are_a_crop_of_the_labels_image(self, encoded):
        # An image of one colour is that colour wherever it is cut.
        colours = [np.full((20, 30, 3), 25 * i, np.uint8) for i in range(8)]
        source = Listed([encoded(colour, "PNG") for colour in colours])
        for images, labels in some(Batches(stream(source), 4, seed=1, workers=0), 4):
            assert np.all(images == 25 * labels[:, None, None, None])

    def test_crops_are_drawn_anew(self, listed):
        (first, _), (second, _) = some(Batches(stream(listed(1)), 1, seed=0, workers=0), 2)
        assert not np.array_equal(first, second)

    @pytest.mark.parametrize("start", [2, 5])  # within the first epoch, and the second
    def test_start_is_the_batch_that_would_have_come(self, listed, start):
        split = stream(listed(9))
        whole = some(Batches(split, 2, seed=3, workers=0), 8)
        rest = some(Batches(split, 2, seed=3, start=start, workers=0), 8 - start)
        for expected, found in zip(whole[start:], rest, strict=True):
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])

    def test_workers_change_nothing(self, listed):
        split = stream(listed(7))
        alone, shared = (
            some(Batches(split, 2, seed=0, start=1, stop=6, workers=workers), 99)
            for workers in (0, 2)
        )
        assert len(alone) == 5
        for expected, found in zip(alone, shared, strict=True):
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])

    def test_processes_share_each_batch(self, listed):
        split = stream(listed(9))
        whole = some(Batches(split, 4, seed=0, workers=0), 4)
        parts = [some(Batches(split, 4, seed=0, workers=0, process=(p, 2)), 4) for p in range(2)]
        for (images, labels), *shares in zip(whole, *parts, strict=True):
            order = np.argsort(labels)
            joined = np.concatenate([share[1] for share in shares])
            np.testing.assert_array_equal(np.sort(joined), labels[order])
            pixels = np.concatenate([share[0] for share in shares])
            np.testing.assert_array_equal(pixels[np.argsort(joined)], images[order])

    def test_seeds_differ(self, listed):
        split = stream(listed(9))
        one, other = (some(Batches(split, 9, seed=s, workers=0), 1)[0][1] for s in (0, 1))
        assert not np.array_equal(one, other)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_truncated_image_is_an_error_that_names_it(self, listed, workers):
        batches = Batches(stream(listed(4, corrupt=[2])), 4, seed=0, workers=workers)
        with pytest.raises(UserError, match=r"class/2\.jpg can't be read"):
            some(batches, 1)

    def test_or_is_replaced_by_the_next_and_counted(self, listed, caplog):
        split = stream(listed(6, corrupt=[2, 5]), skip_corrupt=True)
        batches = Batches(split, 6, seed=0, workers=0)
        (_, labels), (_, again) = some(batches, 2)
        assert sorted(labels.tolist()) == sorted(again.tolist()) == [0, 0, 1, 3, 3, 4]
        assert batches.skipped == {2, 5}
        assert caplog.text.count("left out") == 2
        assert "image class/5.jpg can't be read" in caplog.text
        assert "(2 so far)" in caplog.text

    def test_nothing_but_corrupt_images(self, listed):
        split = stream(listed(2, corrupt=[0, 1]), skip_corrupt=True)
        with pytest.raises(UserError, match="no image of the training split can be read"):
            some(Batches(split, 2, seed=0, workers=0), 1)

    def test_workers_end_when_their_process_is_killed(self, tmp_path, folder):
        folder("a", 5)
        name = folder("b", 5)
        script = tmp_path / "script.py"
        script.write_text(
            "from multiprocessing import active_children\n"
            "from seenn_jax.data import Batches, load_streamed\n"
            "if __name__ == '__main__':\n"
            f"    train = load_streamed({name!r}, side=8, validation=1).train\n"
            "    batches = Batches(train, 2, seed=0, workers=2)\n"
            "    next(batches)\n"
            "    print(*(child.pid for child in active_children()), flush=True)\n"
            "    while True: next(batches)\n"
        )
        path = {"PYTHONPATH": str(Path(streaming.__file__).parents[2])}
        process = subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, env=os.environ | path, text=True
        )
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        process.kill()
        process.wait()
        process.stdout.close()
        deadline = time.monotonic() + 30
        while any(alive(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_too_little_shared_memory(self, monkeypatch, caplog):
        assert streaming._smallest_shared(1) == 0
        assert "shm" not in caplog.text
        if streaming.Path("/dev/shm").is_dir():
            assert streaming._smallest_shared(2**60) > 2**40
            assert "/dev/shm has less than" in caplog.text


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


@pytest.fixture
def folder(tmp_path, picture, encoded):
    """`(path below it, how many images)`: write these images."""

    def write(path, count=1):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            data = encoded(picture(zlib.crc32(f"{path}{i}".encode())))
            (tmp_path / path / f"{i:02}.JPEG").write_bytes(data)
        return f"folder:{tmp_path}"

    return write


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

    @pytest.mark.parametrize("validation", [0, 8])
    def test_validation_out_of_range(self, folder, validation):
        name = folder("a", 10)
        with pytest.raises(UserError, match=f"validation = {validation} .*hold out 1 to 7"):
            load_streamed(name, side=8, validation=validation)

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
