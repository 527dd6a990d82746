"""CIFAR10-DVS, from its AEDAT files (AEDAT 2.0). NumPy only, no JAX."""

import functools
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from seenn_jax.data.events import aedat, recordings
from seenn_jax.data.events.frames import Binning, Events
from seenn_jax.data.events.recordings import FEW, Kind, corrupt, of_file
from seenn_jax.data.prepared import default_root
from seenn_jax.data.splits import Loaded
from seenn_jax.errors import UserError

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
KIND = Kind("CIFAR10-DVS", (128, 128), CIFAR10_DVS, side=48)
RECORDINGS = 1000  # of each class


def load(*, data_dir: str | None, binning: Binning, skip_corrupt: bool) -> Loaded:
    """The (train, test) recordings of CIFAR10-DVS, and its classes.

    Its frames are kept in the user's cache folder.
    """
    folder = Path(data_dir).expanduser() if data_dir else default_root() / "cifar10_dvs"
    found = [
        of_file(file, functools.partial(_read, file), label, is_test)
        for file, label, is_test in cifar10_dvs_files(folder)
    ]
    return recordings.load(KIND, folder, found, binning, skip_corrupt)


def _read(file: Path) -> Events:
    return read_aedat(file)


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
    text = resources.files("seenn_jax.data.events").joinpath("cifar10_dvs_test.txt").read_text()
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name: set(map(int, numbers)) for name, *numbers in lines}


def read_aedat(path: Path) -> Events:
    """The events of a DVS128 camera's AEDAT 2.0 file, upright, in the order of the file.

    Of an address bit 0 is 0 for ON, bits 1 to 7 and 8 to 14 count the sensor's two axes, both
    backwards and in CIFAR10-DVS with the camera on its side (so do SpikingJelly and events-tfds
    read it), and bit 15 marks what is no event of a pixel.

    Raises:
      UserError: it is no such file, has no events, an address outside the sensor, or ends in the
        middle of an event. One that was cut between two events can't be told from a whole one.
    """
    address, time = aedat.addresses(path).T
    off = address > 0xFFFF
    if off.any():
        why = f"it has the address {address[off][0]}, and a DVS128 none above 65535"
        if off.mean() <= FEW:
            raise corrupt(path, why)
        raise UserError(
            f"{path} is of another camera: {why}; give the recordings of CIFAR10-DVS as they were "
            "published"
        )
    of_pixels = address < 0x8000
    address, time = address[of_pixels], time[of_pixels]
    if not address.size:
        raise corrupt(path, "it has no events")
    return Events(
        x=127 - (address >> 8),
        y=127 - (address >> 1 & 127),
        on=(address & 1) == 0,
        t=time - time.min(),
    )
