"""DVS128 Gesture: AEDAT 3.1 files of many gestures each, with the times of each. NumPy only.

Amir et al., CVPR 2017.
"""

import csv
import functools
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seenn_jax.data.events import aedat, recordings
from seenn_jax.data.events.frames import Binning, Events
from seenn_jax.data.events.recordings import Kind, Recording, Unreadable, class_folders
from seenn_jax.data.prepared import default_root
from seenn_jax.data.splits import Loaded
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)
GESTURES = (
    *("hand clapping", "right hand wave", "left hand wave", "right arm clockwise"),
    *("right arm counter clockwise", "left arm clockwise", "left arm counter clockwise"),
    *("arm roll", "air drums", "air guitar", "other gestures"),
)
KIND = Kind("DVS128 Gesture", (128, 128), GESTURES, side=48, camera="DVS128")
_LISTS = {"trials_to_train.txt": False, "trials_to_test.txt": True}  # the official division
_COLUMNS = ("class", "startTime_usec", "endTime_usec")


class Trial(NamedTuple):
    """A gesture within a file."""

    label: int
    start: int  # microseconds of the camera, ...
    end: int  # ... up to which, but not at which


def load(*, data_dir: str | None, binning: Binning, skip_corrupt: bool) -> Loaded:
    """The (train, test) gestures, 1,176 and 288 of them, and their names.

    From the files as they were published, or, in the folders 0 to 10 of train and test, from .npz
    files as SpikingJelly prepares them.
    """
    folder = Path(data_dir).expanduser() if data_dir else default_root() / "dvs128_gesture"
    place = recordings.prepared(folder)
    if place:
        found, labels = [], []
        for part, is_test in (("train", False), ("test", True)):
            names = tuple(map(str, range(len(GESTURES))))
            for file, label in class_folders(place / part, names, ".npz", KIND.name):
                found.append(recordings.npz_recording(file, KIND, label, is_test))
    else:
        root = next((each for each in (folder / "DvsGesture", folder) if each.is_dir()), folder)
        named = list(_listed(root))
        labels = [labels_of(file) for file, _ in named]
        found = [each for file, is_test in named for each in _recordings(file, is_test)]
    try:
        return recordings.load(KIND, folder, found, binning, skip_corrupt, labels=labels)
    finally:
        _events.cache_clear()


def _listed(root: Path) -> Iterator[tuple[Path, bool]]:
    """(file, whether it is for testing), as the lists say.

    Raises:
      UserError: a list, or a file that is named there, or its labels, are missing; one is named
        twice.
    """
    seen: dict[Path, str] = {}  # the list that names it
    what = (
        "extract DvsGesture.tar.gz (Amir et al., CVPR 2017) there, or give the folder that it is "
        "in as --config.data.dir"
    )
    for name, is_test in _LISTS.items():
        if not (root / name).is_file():
            raise UserError(f"{root} has no {name}: {what}")
        files = (root / name).read_text(errors="replace").split()
        for file in files:
            if root / file in seen:
                raise UserError(
                    f"{root / name} names {file}, which {seen[root / file]} names already, and its "
                    "gestures would count twice: name it once, in one of the lists"
                )
            seen[root / file] = name
            for path in (root / file, labels_of(root / file)):
                if path.parent != root or not path.is_file():
                    raise UserError(
                        f"{root / name} names {file}, and there is no file {path}: {what}"
                    )
            yield root / file, is_test
        if not files:
            raise UserError(f"{root / name} is empty: {what}")


def labels_of(file: Path) -> Path:
    """The file of the labels of a recording."""
    return file.with_name(f"{file.stem}_labels.csv")


def _recordings(file: Path, is_test: bool) -> list[Recording]:
    return [
        Recording(
            file,
            functools.partial(_gesture, file, trial),
            trial.label,
            is_test,
            f"{file.name}, {GESTURES[trial.label]}",
        )
        for trial in read_labels(labels_of(file))
    ]


def read_labels(path: Path) -> list[Trial]:
    """The gestures of a recording, in order.

    Raises:
      UserError: it is no such table, has a class that is none, or times that can't be.
    """
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) != _COLUMNS:
                raise ValueError(f"its first line is not {','.join(_COLUMNS)}")
            found = [Trial(*(int(row[name]) for name in _COLUMNS)) for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} is no table of labels ({error}): extract DvsGesture.tar.gz again"
        ) from error
    for trial in found:
        if not (1 <= trial.label <= len(GESTURES) and 0 <= trial.start < trial.end):
            raise UserError(
                f"{path} has the gesture {trial.label} from {trial.start} to {trial.end} "
                f"microseconds, and gestures are numbered from 1 to {len(GESTURES)} and end after "
                "they start: extract DvsGesture.tar.gz again"
            )
    if not found:
        raise UserError(f"{path} has no labels: extract DvsGesture.tar.gz again")
    for before, trial in itertools.pairwise(sorted(found, key=lambda trial: trial.start)):
        if trial == before:
            raise UserError(
                f"{path} has the gesture {trial.label} from {trial.start} to {trial.end} "
                "microseconds twice, which would count twice: extract DvsGesture.tar.gz again"
            )
        if trial.start < before.end:
            _log.warning(
                "%s: gesture %d begins at %d microseconds, before gesture %d ends, at %d; events "
                "in between are of both",
                path,
                *(trial.label, trial.start, before.label, before.end),
            )
    return [trial._replace(label=trial.label - 1) for trial in found]


@functools.lru_cache(maxsize=1)  # whose gestures follow each other
def _events(file: Path) -> Events | Unreadable:
    try:
        return aedat.read_3_1(file, KIND)
    except Unreadable as error:
        return error


def _gesture(file: Path, trial: Trial) -> Events:
    """The events of one gesture."""
    events = _events(file)
    if isinstance(events, Unreadable):
        raise events
    time = np.asarray(events.t)
    inside = (time >= trial.start) & (time < trial.end)
    if not np.any(inside):
        raise Unreadable(
            f"{labels_of(file)} has {GESTURES[trial.label]!r} from {trial.start} to {trial.end} "
            f"microseconds, and {file.name} has events from {time.min()} to {time.max()}, none of "
            "them then: these labels are of another recording, or the events are cut; extract "
            "both files again, or leave such gestures out with `config.data.skip_corrupt`=true"
        )
    x, y, on = (each[inside] for each in events[:3])
    return Events(x, y, on, time[inside] - trial.start)
