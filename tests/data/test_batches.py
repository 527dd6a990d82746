import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from grain.multiprocessing import SharedMemoryArray

from seenn_jax.data import batches
from seenn_jax.data.batches import Batches
from seenn_jax.errors import UserError
from tests.data.listed import Listed, some, stream


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

    def test_no_thread_frees_what_workers_share(self, listed):
        batches = Batches(stream(listed(7)), 2, seed=0, workers=1)
        images, _ = next(batches)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGINT)  # as a terminal does by Ctrl-C
            os.kill(worker.pid, signal.SIGTERM)  # as a cluster does, to all of a group
        next(batches)
        assert multiprocessing.active_children()
        assert type(images) is SharedMemoryArray
        assert SharedMemoryArray._del_thread_pool is None
        # Not to be found by its name any more, wherever this process ends.
        assert not Path("/dev/shm", images.shm.name.strip("/")).exists()
        whole = some(Batches(stream(listed(7)), 2, seed=0, workers=0), 1)[0][0]
        np.testing.assert_array_equal(images, whole)
        del images
        batches.close()

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
            "from seenn_jax.data.images import Framing\n"
            "if __name__ == '__main__':\n"
            f"    train = load_streamed({name!r}, framing=Framing(8), validation=1).train\n"
            "    batches = Batches(train, 2, seed=0, workers=2)\n"
            "    next(batches)\n"
            "    print(*(child.pid for child in active_children()), flush=True)\n"
            "    while True: next(batches)\n"
        )
        path = {"PYTHONPATH": str(Path(batches.__file__).parents[2])}
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
        assert batches._smallest_shared(1) == 0
        assert "shm" not in caplog.text
        if batches.Path("/dev/shm").is_dir():
            assert batches._smallest_shared(2**60) > 2**40
            assert "/dev/shm has less than" in caplog.text


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()
