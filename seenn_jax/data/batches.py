"""Batches of a streamed split to train on, made by worker processes."""

import contextlib
import gc
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Int32, UInt8

from seenn_jax.data.images import Corrupt, cores, decode, decoded
from seenn_jax.data.streams import Stream
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)

_WRITTEN = 2  # batches that each worker has ready, besides the one that it makes


class _Example:
    """`(number in the stream, generator) -> image, label and the record that could not be read`."""

    def __init__(self, stream: Stream):
        self.stream = stream

    def __call__(self, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        stream, skipped = self.stream, -1
        for shift in range(stream.size):
            index = int(stream.indices[(number + shift) % stream.size])
            record = stream.source[index]
            try:
                image = decode(record) if stream.skip_corrupt else decoded(record)
            except Corrupt:
                skipped = index
                continue
            return {
                "image": stream.framing.part(image, rng),
                "label": np.int32(record.label),
                "skipped": np.int64(skipped),
            }
        raise UserError("no image of the training split can be read: replace them")


class Batches(Iterator[tuple[UInt8[np.ndarray, "B H W 3"], Int32[np.ndarray, "B"]]]):
    """Batches of (images, labels), each epoch in an order of its own.

    What does not fill a batch is left out of that epoch. `close` it, to end the workers.

    Args:
      stream: the split.
      batch_size: images in a batch, of all processes together.
      seed: of the orders and the crops.
      start, stop: numbers of the first batch and of the one after the last; None: without end.
      workers: processes that make batches; 0 makes them in this one, -1 is one for each core.
      process: (number of this process, number of processes), each of which has its part of every
        batch.
    """

    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        stop: int | None = None,
        workers: int = -1,
        process: tuple[int, int] = (0, 1),
    ):
        import grain  # Slow to import.

        if not flags.FLAGS.is_parsed():  # Grain reads its flags, in whatever program.
            flags.FLAGS.mark_as_parsed()
        self._stream = stream
        self.skipped: set[int] = set()  # records that could not be read, so far
        each = batch_size // process[1]
        used = stream.size // batch_size * batch_size
        workers = cores() if workers < 0 else workers
        shuffled = grain.MapDataset.range(stream.size).seed(seed).shuffle()
        examples = shuffled.random_map(_Example(stream))[:used]
        batches = examples[process[0] :: process[1]].batch(each).repeat()
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        in_order = batches[start:stop].to_iter_dataset(options)
        if workers:
            _free_at_once()
            needed = workers * (_WRITTEN + 2) * each * stream.side**2 * 3
            in_order = grain.experimental.WithOptionsIterDataset(
                in_order,
                grain.experimental.DatasetOptions(min_shm_size=_smallest_shared(needed)),
            ).mp_prefetch(
                grain.MultiprocessingOptions(workers, per_worker_buffer_size=_WRITTEN),
                worker_init_fn=_end_with_parent,
            )
        self._iterator = iter(in_order)
        self._started = False

    def __next__(self) -> tuple[UInt8[np.ndarray, "B H W 3"], Int32[np.ndarray, "B"]]:
        if self._iterator is None:
            raise StopIteration
        try:
            with contextlib.nullcontext() if self._started else _blocked_in_workers():
                batch = next(self._iterator)
            self._started = True
        except BaseException:  # of one worker, or of this process: the others have more to free
            self.close()
            raise
        for array in batch.values():
            _unname(array)
        for index in set(batch["skipped"].tolist()) - self.skipped - {-1}:
            self.skipped.add(index)
            name = self._stream.source[index].name
            _log.warning("left out: image %s can't be read (%d so far)", name, len(self.skipped))
        return batch["image"], batch["label"]

    def close(self) -> None:
        """End the worker processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None
        gc.collect()  # of cycles that hold shared memory, which would be warned of at exit


def _free_at_once() -> None:
    """Let Grain free shared memory at once, and not in a thread of its own.

    There both it and Python's collector may close a file at the same time, after which the memory
    is kept to the end, and warned of.
    """
    import grain.multiprocessing

    grain.multiprocessing.SharedMemoryArray.enable_async_del = lambda *_, **__: None


def _unname(array: Any) -> None:
    """Take the name from shared memory at once, which stays as long as the array does.

    So nothing of it is left, and warned of, where this process ends with a batch in its hands.
    """
    memory = getattr(array, "shm", None)
    if memory is not None:
        memory.unlink()
        array._unlink_on_del = False  # Grain would do it again


@contextlib.contextmanager
def _blocked_in_workers() -> Iterator[None]:
    """Processes that are started here never see SIGINT and SIGTERM.

    A terminal sends Ctrl-C to all of a group of processes, a cluster SIGTERM, and what is to be
    done then is the training process's. Other threads of this process see them meanwhile.
    """
    resource_tracker.ensure_running()  # which would end the blocking once it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(worker: int, workers: int) -> None:
    """In a worker: end as soon as the training process is gone, were it killed, and not before."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _smallest_shared(needed: int) -> int:
    """Bytes from which on an array goes through shared memory: none where there is too little."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free < needed:
        _log.warning(
            "%s has less than the %.1f GiB that batches need: they go through pipes, more slowly",
            memory,
            needed / 2**30,
        )
        return sys.maxsize
    return 0
