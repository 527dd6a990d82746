"""Recordings on disk as the frames of a data set, which are kept in the cache. NumPy only."""

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seenn_jax.data.cache import cache_folder, read_cache, write_cache
from seenn_jax.data.events.formats import ZIP, other_format
from seenn_jax.data.events.frames import UNITS, Binning, Events, Frames, frame_of, resize, to_frames
from seenn_jax.data.splits import Loaded, Split
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)
# What the arrays of SpikingJelly's .npz files have, in whole numbers.
_ARRAYS = {"t": "microseconds", "x": "columns", "y": "rows", "p": "polarities"}
_LARGEST = 2**53  # which also floats hold exactly
_LONGEST = 10**12  # microseconds of a recording, eleven days: what spans more is none
FEW = 0.01  # of the events of a recording: as many that can't be are damage, more another format


class Unreadable(UserError):
    """A recording that can't be read, and may be left out; says which, and why."""


class Recording(NamedTuple):
    """A recording on disk.

    Attributes:
      file: that it is in.
      read: `() -> its events`; raises `Unreadable`.
      label: of its class.
      is_test: whether it is for testing.
      place: what it is known by.
    """

    file: Path
    read: Callable[[], Events]
    label: int
    is_test: bool
    place: str


class Kind(NamedTuple):
    """What a data set of recordings is like.

    Attributes:
      name: as people call it.
      sensor: (height, width) in pixels.
      classes: their names.
      side: of its frames in pixels where nothing is said; 0 leaves them as they are.
      channels: 2, ON and OFF, or 1.
      camera: as its files call it, where they do.
    """

    name: str
    sensor: tuple[int, int]
    classes: Sequence[str]
    side: int = 0
    channels: int = 2
    camera: str = ""


def corrupt(path: Path, why: str) -> Unreadable:
    """What is said of a file that is not whole."""
    return Unreadable(
        f"{path} is corrupt: {why}; extract it again, or leave such files out with "
        "`config.data.skip_corrupt`=true"
    )


def check_place(path: Path, events: Events, kind: Kind, camera: str = "") -> None:
    """Raise an error for no events, for times that can't be, and for events off the sensor.

    Where the last are many, the recording is of another camera (a UserError, with the name of that
    where the file says it), and else, or where the file says that it is of this camera, it is
    damaged (`Unreadable`).
    """
    if not len(events.x):
        raise corrupt(path, "it has no events")
    span = 0 if events.t is None else int(events.t.max()) - int(events.t.min())
    if span > _LONGEST:
        raise corrupt(
            path, f"its times span {span:,} microseconds, and at most {_LONGEST:,} can be"
        )
    height, width = kind.sensor
    off = (events.x < 0) | (events.x >= width) | (events.y < 0) | (events.y >= height)
    if not off.any():
        return
    first = int(off.argmax())
    why = (
        f"it has an event at the pixel x = {events.x[first]}, y = {events.y[first]}, and the "
        f"sensor of {kind.name} has {width} x {height} pixels"
    )
    if off.mean() <= FEW or (camera and camera == kind.camera):
        raise corrupt(path, why)
    of = f" ({camera})" if camera else ""
    raise UserError(
        f"{path} is of another camera{of}: {why}; give the recordings of {kind.name} as they were "
        "published"
    )


def load(
    kind: Kind,
    folder: Path,
    recordings: Sequence[Recording],
    binning: Binning,
    skip_corrupt: bool,
    *,
    labels: Iterable[Path] = (),
) -> Loaded:
    """The (train, test) frames of recordings, and their classes.

    Args:
      folder: where they lie, which names what is kept.
      labels: files of labels, where there are any.

    Raises:
      UserError: one can't be read, and they are not to be skipped; a class has none left.
    """
    binning.check()
    listed = [(each.place, each.label, each.is_test) for each in recordings]
    about = ("frames", tuple(binning), skip_corrupt, tuple(kind), listed)
    files = dict.fromkeys((*(recording.file for recording in recordings), *labels))
    cache = cache_folder(folder, files, about)
    loaded = read_cache(cache)
    if loaded is None:
        _log.info("integrating the recordings in %s, once; this takes minutes", folder)
        loaded, note = _read(kind, folder, recordings, binning, skip_corrupt)
        if note:
            _log.warning("%s: %s", folder, note)
        write_cache(cache, *loaded, note=note)
    missing = len(recordings) - len(loaded[0].labels) - len(loaded[1].labels)
    if missing:
        _log.warning("%d of %d recordings are corrupt and left out", missing, len(recordings))
    return loaded


def _read(
    kind: Kind,
    folder: Path,
    recordings: Sequence[Recording],
    binning: Binning,
    skip_corrupt: bool,
) -> tuple[Loaded, str]:
    """(what `load` gives, what is to be said of it each time)."""
    height, width = size_of(kind, binning)
    units = 1 if (height, width) == kind.sensor else UNITS
    shape = (binning.timesteps, height, width, kind.channels)
    frames, kept = Frames(len(recordings), shape, units, binning.saturate), []
    unordered, late, events_in_all = [], 0, 0
    for recording in recordings:
        try:
            events = recording.read()
        except Unreadable as error:
            if not skip_corrupt:
                raise
            _log.warning("left out: %s", error)
            continue
        if events.t is not None and np.any(np.diff(events.t) < 0):
            unordered.append(recording.place)
        late += int(np.sum(frame_of(events, binning) >= binning.timesteps))
        events_in_all += len(events.x)
        counts = to_frames(events, binning, *kind.sensor, kind.channels)
        frames.add(counts if units == 1 else resize(counts, height, width))
        kept.append((recording.label, recording.is_test))
    labels, is_test = np.array(kept, np.int32).reshape(-1, 2).T
    train, test = (Split(frames.array[part], labels[part]) for part in (is_test == 0, is_test == 1))
    _check_classes(kind, folder, [train, test])
    notes = [frames.loss] * bool(frames.loss)
    if late:
        notes.append(
            f"{late / events_in_all:.1%} of the events come after {binning.timesteps} frames of "
            f"{binning.bin_ms:g} ms and are left out"
        )
    if unordered:
        notes.append(
            f"{len(unordered):,} of {len(recordings):,} recordings have events that are not in the "
            f"order of time, and are taken as they stand, such as {unordered[0]}"
        )
    return (train, test, tuple(kind.classes)), "; ".join(notes)


def size_of(kind: Kind, binning: Binning) -> tuple[int, int]:
    """(height, width) of the frames.

    Raises:
      UserError: more than the sensor has.
    """
    side = binning.side or kind.side
    if not side:
        return kind.sensor
    height, width = kind.sensor
    most = min(kind.sensor) if height > 1 else width
    if side > most:
        raise UserError(
            f"`config.data.event_side` is {side}, and the sensor of {kind.name} has {width} x "
            f"{height} pixels: set it to at most {most}"
        )
    return (side, side) if height > 1 else (1, side)


def _check_classes(kind: Kind, folder: Path, splits: list[Split]) -> None:
    for split in splits:
        left = np.bincount(split.labels, minlength=len(kind.classes))
        if not left.all():
            lacking = kind.classes[int(left.argmin())]
            raise UserError(
                f"no recording of class {lacking!r} in {folder} can be read, for training or for "
                "testing: extract its archive again"
            )


# --- What SpikingJelly prepares ------------------------------------------------------------------


def prepared(folder: Path) -> Path | None:
    """The folder of .npz files that SpikingJelly made of a data set, where it is there."""
    for place in (folder / "events_np", folder):
        found = itertools.chain(place.glob("*/*.npz"), place.glob("*/*/*.npz"))
        names = (path.relative_to(place).parts[0] for path in found)
        if any(not name.startswith("frames_") for name in names):  # it makes frames of them too
            return place
    return None


def read_npz(path: Path, kind: Kind) -> Events:
    """The events of an .npz with arrays t (microseconds), x, y and p (1 is ON).

    Raises:
      UserError: as `corrupt` and `check_place`; a number is not whole, or none.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = [file[name] for name in _ARRAYS]
    except Exception as error:  # of any kind, where files are damaged
        what = other_format(_start(path))
        if what and what != ZIP:  # which an .npz is
            raise UserError(
                f"{path} is {what}, and here .npz of arrays t, x, y and p are read: give the "
                "recordings as SpikingJelly prepares them"
            ) from None
        raise corrupt(path, f"it is no .npz of arrays t, x, y and p ({error})") from error
    for (name, unit), array in zip(_ARRAYS.items(), arrays, strict=True):
        takes = f"and takes whole {unit} up to 2^53"
        if array.dtype.kind not in "biuf":
            raise corrupt(path, f"its array {name} is of {array.dtype}, {takes}")
        values = array.astype(np.float64)
        odd = ~(np.abs(values) <= _LARGEST) | (values != np.rint(values))  # and where it is NaN
        if odd.any():
            raise corrupt(path, f"its array {name} has {array[odd][0]}, {takes}")
    t, x, y, p = (array.astype(np.int64) for array in arrays)
    if not len({part.shape for part in (t, x, y, p)}) == x.ndim == 1:
        raise corrupt(path, "its arrays t, x, y and p are not of one length")
    events = Events(x, y, p > 0, t - t.min() if len(t) else t)
    check_place(path, events, kind)
    return events


def _start(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(16)


def npz_recording(path: Path, kind: Kind, label: int, is_test: bool) -> Recording:
    """One of SpikingJelly's files."""
    return of_file(path, functools.partial(read_npz, path, kind), label, is_test)


def of_file(path: Path, read: Callable[[], Events], label: int, is_test: bool) -> Recording:
    """A recording that has its file to itself, in a class folder."""
    return Recording(path, read, label, is_test, f"{path.parent.name}/{path.name}")


def class_folders(
    place: Path, names: Sequence[str], suffix: str, what: str
) -> list[tuple[Path, int]]:
    """(file, label) of all files of class folders, in order.

    Raises:
      UserError: a class folder is missing, or has no such file.
    """
    missing = [name for name in names if not (place / name).is_dir()]
    if missing:
        raise UserError(
            f"{place} has {len(names) - len(missing)} of the {len(names)} class folders of {what} "
            f"and lacks {', '.join(missing[:20])}: extract its archives into it, or give the "
            "folder that they are in as --config.data.dir"
        )
    found = []
    for label, name in enumerate(names):
        files = sorted((place / name).glob(f"*{suffix}"))
        if not files:
            raise UserError(
                f"the class folder {place / name} has no {suffix} file: extract the archives of "
                f"{what} again"
            )
        found += [(file, label) for file in files]
    return found
