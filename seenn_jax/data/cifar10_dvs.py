"""CIFAR10-DVS, from its AEDAT files (AEDAT 2.0). NumPy only, no JAX."""

import logging
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from seenn_jax.data.cache import cache_folder, read_cache, write_cache
from seenn_jax.data.frames import Events, resize, to_frames
from seenn_jax.data.prepared import default_root
from seenn_jax.data.splits import Loaded, Split
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)
CIFAR10_DVS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


SIDE = 48  # to which its 128 x 128 pixels are brought
# A cell that is partly covered by a pixel has parts of its events: counts are kept in quarters of
# an event, up to 63.75 of them.
UNITS = 4
RECORDINGS = 1000  # of each class
_FIRST_LINE = re.compile(rb"#!AER-DAT2\.0\r?\n")
_SENSOR = 128


def load(*, data_dir: str | None, timesteps: int, skip_corrupt: bool) -> Loaded:
    """The (train, test) recordings of CIFAR10-DVS, and its classes.

    Its frames are kept in the user's cache folder.
    """
    folder = Path(data_dir).expanduser() if data_dir else default_root() / "cifar10_dvs"
    files = list(cifar10_dvs_files(folder))
    cache = cache_folder(folder, (file for file, *_ in files), ("frames", timesteps, skip_corrupt))
    loaded = read_cache(cache)
    if loaded is None:
        _log.info("integrating the recordings in %s, once; this takes minutes", folder)
        read = read_recordings(files, timesteps, skip_corrupt=skip_corrupt)
        train, test = (
            Split(read.frames[where], read.labels[where]) for where in (~read.is_test, read.is_test)
        )
        for split in (train, test):
            left = np.bincount(split.labels, minlength=len(CIFAR10_DVS))
            if not left.all():
                raise UserError(
                    f"no recording of class {CIFAR10_DVS[left.argmin()]!r} in {folder} can "
                    "be read, for training or for testing: extract its archive again"
                )
        loaded = train, test, CIFAR10_DVS
        write_cache(cache, *loaded)
    missing = len(files) - len(loaded[0].labels) - len(loaded[1].labels)
    if missing:
        _log.warning("%d of %d recordings are corrupt and left out", missing, len(files))
    return loaded


class Recordings(NamedTuple):
    """Frames of recordings, and what was left out."""

    frames: UInt8[np.ndarray, "N T H W 2"]
    labels: Int32[np.ndarray, "N"]
    is_test: Bool[np.ndarray, "N"]
    skipped: list[str]  # files that could not be read, with their class folders


def cifar10_dvs_files(folder: Path) -> Iterator[tuple[Path, int, bool]]:
    """(file, label, whether it is for testing) of CIFAR10-DVS, as its ten archives have them.

    The division is in cifar10_dvs_test.txt, the same for everybody.

    Raises:
      UserError: class folders or files are missing.
    """
    what = (
        "extract the ten archives of CIFAR10-DVS (doi.org/10.6084/m9.figshare.4724671) into it, or "
        "give the folder that they are in as --config.data.dir"
    )
    missing = [name for name in CIFAR10_DVS if not (folder / name).is_dir()]
    if missing:
        raise UserError(
            f"{folder} has {len(CIFAR10_DVS) - len(missing)} of the {len(CIFAR10_DVS)} class "
            f"folders of CIFAR10-DVS and lacks {', '.join(missing)}: {what}"
        )
    test = held_out()
    for label, name in enumerate(CIFAR10_DVS):
        there = {path.name for path in (folder / name).iterdir()}
        wanted = [f"cifar10_{name}_{number}.aedat" for number in range(RECORDINGS)]
        lacking = [file for file in wanted if file not in there]
        if lacking:
            raise UserError(
                f"the class folder {folder / name} holds {RECORDINGS - len(lacking)} of its "
                f"{RECORDINGS} .aedat files, and not {lacking[0]}, among {len(there)} files in "
                f"all: {what}"
            )
        yield from (
            (folder / name / file, label, number in test[name])
            for number, file in enumerate(wanted)
        )


def held_out() -> dict[str, set[int]]:
    """{class: numbers of its recordings that are for testing}, the published division."""
    text = resources.files("seenn_jax.data").joinpath("cifar10_dvs_test.txt").read_text()
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name: set(map(int, numbers)) for name, *numbers in lines}


def read_recordings(
    files: list[tuple[Path, int, bool]], timesteps: int, *, skip_corrupt: bool
) -> Recordings:
    """Frames of the files of `cifar10_dvs_files`: counts in quarters of an event, 48 x 48 pixels.

    Raises:
      UserError: a file can't be read, and they are not to be skipped; tonic is not installed.
    """
    _check_tonic()
    frames = np.empty((len(files), timesteps, SIDE, SIDE, 2), np.uint8)
    kept, skipped = [], []
    for file, label, is_test in files:
        try:
            events = read_aedat(file)
        except UserError as error:
            if not skip_corrupt:
                raise
            _log.warning("left out: %s", error)
            skipped.append(f"{file.parent.name}/{file.name}")
            continue
        counts = UNITS * resize(to_frames(events, timesteps, _SENSOR), SIDE)
        frames[len(kept)] = np.minimum(np.rint(counts), 255)
        kept.append((label, is_test))
    labels, of_test = np.array(kept, np.int32).reshape(-1, 2).T
    return Recordings(frames[: len(kept)], labels, of_test.astype(bool), skipped)


def read_aedat(path: Path) -> Events:
    """The events of a DVS128 camera's AEDAT 2.0 file, upright, in the order of the file.

    A record is two big-endian 32-bit words, address and microseconds. Of an address bit 0 is 0 for
    ON, bits 1 to 7 and 8 to 14 count the sensor's two axes, both backwards and in CIFAR10-DVS with
    the camera on its side (so do SpikingJelly and events-tfds read it), and bit 15 marks what is
    no event of a pixel.

    Raises:
      UserError: it is no such file, has no events, an address outside the sensor, or ends in the
        middle of an event. One that was cut between two events can't be told from a whole one.
    """
    import tonic.io  # Slow to import, and not everybody has it.

    if not path.is_file():
        raise _corrupt(path, "it is no regular file")
    with path.open("rb") as file:
        if not _FIRST_LINE.fullmatch(file.readline()):
            raise _corrupt(path, "it does not begin with the line #!AER-DAT2.0")
        start = file.tell()
        while file.readline().startswith(b"#"):
            start = file.tell()
    size = path.stat().st_size - start
    if size % 8:
        raise _corrupt(path, f"it has {size:,} bytes of events of 8 bytes each, the last cut short")
    # Not tonic's read_dvs_128, which fails in 1.7.0 and turns neither the image nor the polarity;
    # nor its reading of headers, which takes one byte too many where there are no events.
    addresses = tonic.io.get_aer_events_from_file(path, 2.0, start)["address"].astype(np.int64)
    if np.any(addresses > 0xFFFF):
        raise _corrupt(path, f"it has the address {addresses.max()}, and a DVS128 none above 65535")
    addresses = addresses[addresses < 0x8000]
    if not addresses.size:
        raise _corrupt(path, "it has no events")
    last = _SENSOR - 1
    return Events(
        x=last - (addresses >> 8), y=last - ((addresses >> 1) & last), on=(addresses & 1) == 0
    )


def _corrupt(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} (class folder {path.parent.name!r}) is corrupt: {why}; extract it again, or leave "
        "such files out with `config.data.skip_corrupt`=true"
    )


def _check_tonic() -> None:
    try:
        import tonic.io  # noqa: F401
    except ImportError as error:
        raise UserError(
            "AEDAT files are read by tonic, which is not installed: "
            "pip install -c requirements.lock -e '.[events]'"
        ) from error
