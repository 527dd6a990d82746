"""N-MNIST and N-Caltech101: files of an ATIS camera, 40 bits an event. NumPy only, no JAX.

Orchard et al., Frontiers in Neuroscience 2015, doi.org/10.3389/fnins.2015.00437.
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seenn_jax.data.events import recordings
from seenn_jax.data.events.aedat import check_file
from seenn_jax.data.events.formats import other_format
from seenn_jax.data.events.frames import Binning, Events
from seenn_jax.data.events.recordings import (
    Kind,
    Recording,
    check_place,
    class_folders,
    corrupt,
    of_file,
)
from seenn_jax.data.prepared import default_root
from seenn_jax.data.splits import Loaded, permutation
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)
N_MNIST = Kind("N-MNIST", (34, 34), tuple("0123456789"))
N_CALTECH101 = Kind("N-Caltech101", (180, 240), (), side=48)
# How the folders of the published division of N-Caltech101 are called (Gehrig et al., ICCV 2019).
_DIVISION = {"training": False, "validation": False, "testing": True}
_CLASSES = 101
_TEST = 5  # without it, one recording of so many is for testing
_OVERFLOW_ROW, _OVERFLOW = 240, 2**13  # what no event of a pixel is, and the microseconds it adds


def load_n_mnist(*, data_dir: str | None, binning: Binning, skip_corrupt: bool) -> Loaded:
    """The (train, test) recordings of N-MNIST, from its folders Train and Test, and its classes.

    Or from train and test of .npz files, as SpikingJelly prepares them.
    """
    folder = Path(data_dir).expanduser() if data_dir else default_root() / "n_mnist"
    place = recordings.prepared(folder)
    suffix, parts = (".npz", ("train", "test")) if place else (".bin", ("Train", "Test"))
    found = [
        _recording(file, N_MNIST, label, is_test)
        for part, is_test in zip(parts, (False, True), strict=True)
        for file, label in class_folders(
            (place or folder) / part, N_MNIST.classes, suffix, "N-MNIST"
        )
    ]
    return recordings.load(N_MNIST, folder, found, binning, skip_corrupt)


def load_n_caltech101(*, data_dir: str | None, binning: Binning, skip_corrupt: bool) -> Loaded:
    """The (train, test) recordings of N-Caltech101, and its classes, the names of its folders.

    They are in folders training, validation and testing, the division of Gehrig et al. (ICCV 2019),
    of which testing is for testing. Or in class folders alone, for which no division was published:
    then every fifth file of each is for testing, in a fixed random order. Of .bin files, or of .npz
    files, as SpikingJelly prepares them.
    """
    folder = Path(data_dir).expanduser() if data_dir else default_root() / "n_caltech101"
    place = recordings.prepared(folder)
    suffix, top = (".npz", place) if place else (".bin", folder)
    top = next((each for each in (top / "Caltech101", top) if each.is_dir()), folder)
    divided = [name for name in _DIVISION if (top / name).is_dir()]
    if divided and {"training", "testing"} - {*divided}:
        raise UserError(
            f"{top} has the folder {divided[0]} and not both of training and testing: extract all "
            "of N-Caltech101 there"
        )
    classes = _class_names(top, divided)
    kind, found = N_CALTECH101._replace(classes=classes), []
    for name in divided:
        files = class_folders(top / name, classes, suffix, kind.name)
        found += [_recording(file, kind, label, _DIVISION[name]) for file, label in files]
    if not divided:
        files = class_folders(top, classes, suffix, kind.name)
        tested = _every_fifth([label for _, label in files])
        found = [
            _recording(file, kind, label, number in tested)
            for number, (file, label) in enumerate(files)
        ]
    return recordings.load(kind, folder, found, binning, skip_corrupt)


def _class_names(top: Path, divided: Sequence[str]) -> tuple[str, ...]:
    """The names of the class folders, which those of `divided` share."""
    place, *others = [top / name for name in divided] or [top]
    found = _folders(place)
    what = f"{place} has {len(found)} class folders of N-Caltech101, and it has {_CLASSES}"
    if len(found) < 2:
        raise UserError(
            f"{what}: extract Caltech101.zip there, or give the folder that it is in as "
            "--config.data.dir"
        )
    if found == N_MNIST.classes:
        raise UserError(
            f"{place} has the class folders of N-MNIST: set `config.data.name`=n_mnist, or give "
            "the folder of N-Caltech101 as --config.data.dir"
        )
    for other in others:
        odd = sorted({*_folders(other)} - {*found})
        if odd:
            raise UserError(
                f"{other} has the class folder {odd[0]!r} and {place} has none of this name: add "
                "it there, or delete it here"
            )
    if len(found) != _CLASSES:
        _log.warning("%s: these alone are learnt", what)
    return found


def _folders(place: Path) -> tuple[str, ...]:
    there = place.iterdir() if place.is_dir() else ()
    return tuple(sorted(each.name for each in there if each.is_dir() and each.name[0] != "."))


def _every_fifth(labels: Sequence[int]) -> set[int]:
    """Numbers of the files that are for testing, of files in the order of their classes."""
    counts, start, found = np.bincount(labels), 0, set()
    for count in counts.tolist():
        found |= {start + int(number) for number in permutation(count, seed=0)[::_TEST]}
        start += count
    return found


def _recording(file: Path, kind: Kind, label: int, is_test: bool) -> Recording:
    if file.suffix == ".npz":
        return recordings.npz_recording(file, kind, label, is_test)
    return of_file(file, functools.partial(read_atis, file, kind), label, is_test)


def read_atis(path: Path, kind: Kind) -> Events:
    """The events of a .bin file.

    Five bytes an event: column, row, and 24 bits, big-endian, of which the first is 1 for ON and
    the others are microseconds. In row 240 there is no pixel: it says that time has overflowed.

    Raises:
      UserError: it is of another format, ends in the middle of an event, has no events, or events
        off the sensor.
    """
    check_file(path)
    data = np.fromfile(path, np.uint8)
    try:
        return _events(path, data, kind)
    except UserError:  # only now: there is no header, and events may begin as another format does
        other = other_format(data[:16].tobytes())
        if other is None:
            raise
        raise UserError(
            f"{path} is {other}, and {kind.name} has .bin files of an ATIS camera: give the "
            "recordings as they were published"
        ) from None


def _events(path: Path, data: np.ndarray, kind: Kind) -> Events:
    if len(data) % 5:
        raise corrupt(path, f"it has {len(data):,} bytes of events of 5 bytes each")
    x, y, high, middle, low = data.reshape(-1, 5).T.astype(np.int64)
    overflowed = y == _OVERFLOW_ROW
    time = ((high & 127) << 16 | middle << 8 | low) + _OVERFLOW * np.cumsum(overflowed)
    kept = ~overflowed
    events = Events(x[kept], y[kept], high[kept] > 127, time[kept])
    check_place(path, events, kind)
    return events._replace(t=events.t - events.t.min())
