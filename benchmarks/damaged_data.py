"""Damage data files, and count what becomes of it.

python benchmarks/damaged_data.py --tries=600 --pictures=600

Each try is a process of its own. A damaged file is one of a data set that is made for it, with a
bit flipped, cut at a place, gone, or zero for a stretch. What is counted:

- right: the data are the same, or what can't be read was left out, which the log says;
- sentence: one sentence says what is wrong, status 2;
- silent: other data, and nothing said. A JPEG, WebP or BMP has no checksum, nor has an event file,
  TFDS's JSON files or the names of classes: what still reads there can't be told from whole files;
- traceback, crash, hang: what should not be.
"""

import argparse
import functools
import hashlib
import io
import json
import logging
import math
import os
import random
import shutil
import signal
import struct
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from damages import DAMAGES, damage
from PIL import Image

from seenn_jax.data import load_dataset
from seenn_jax.data.events import aedat, atis, cifar10_dvs, dvs128_gesture, recordings
from seenn_jax.data.events.frames import Events
from seenn_jax.data.images import Corrupt, Record, decode
from seenn_jax.errors import UserError

OUTCOMES = ("right", "sentence", "silent", "traceback", "crash", "hang")
SECONDS = 120  # for a try
ALONE = ("images", "event files")  # how the names begin of files that are read by themselves
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


# --- What is damaged -----------------------------------------------------------------------------


def pictures(count: int) -> list[np.ndarray]:
    """Small images, smooth, no two alike."""
    drawn = np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(each).resize((12, 10))) for each in drawn]


def encoded(image: np.ndarray, format: str) -> bytes:
    """The bytes of its file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format)
    return file.getvalue()


def prepare(folder: Path) -> None:
    """A data set `tiny` as TFDS prepares it."""
    import tensorflow_datasets as tfds

    rows = [(encoded(image, "PNG"), i % 4) for i, image in enumerate(pictures(40))]

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Forty images of four classes."""

        __module__ = "tiny"  # of no package
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["ant", "bee", "cat", "dog"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            splits = {"train": rows[:32], "test": rows[32:]}
            return {name: self._generate_examples(part) for name, part in splits.items()}

        def _generate_examples(self, part):
            for i, (image, label) in enumerate(part):
                yield i, {"image": image, "label": label}

    Tiny.name = "tiny"
    tfds.disable_progress_bar()
    Tiny(data_dir=folder, file_format="array_record").download_and_prepare()


def loaded(folder: Path, skip_corrupt: bool = False) -> str:
    """What the data set `tiny` holds."""
    found = load_dataset("tiny", data_dir=str(folder), validation=4, skip_corrupt=skip_corrupt)
    digest = hashlib.sha256(repr(found.classes).encode())
    for split in (found.train, found.validation, found.test):
        digest.update(split.images.tobytes() + split.labels.tobytes())
    return digest.hexdigest()


def image_files(folder: Path) -> None:
    """A file of each format."""
    for number, format in enumerate(FORMATS):
        (folder / f"a.{format.lower()}").write_bytes(encoded(pictures(4)[number], format))


def shown(file: Path) -> str:
    """What an image shows."""
    data = file.read_bytes() if file.is_file() else b""
    return hashlib.sha256(np.asarray(decode(Record(data, 0, file.name))).tobytes()).hexdigest()


def event_files(folder: Path) -> None:
    """A recording of 500 events in each format."""
    rng = np.random.default_rng(0)
    times, x, y, on = 1000 * np.arange(500), *rng.integers(0, 34, (2, 500)), rng.integers(0, 2, 500)
    words = np.stack([rng.integers(0, 2**15, 500), times], axis=1).astype(">u4").tobytes()
    (folder / "AEDAT 2.0").write_bytes(b"#!AER-DAT2.0\r\n# of 2012\r\n" + words)
    packet = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 500, 500, 500)
    words = np.stack([x << 17 | y << 2 | on << 1 | 1, times], axis=1).astype("<u4").tobytes()
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    (folder / "AEDAT 3.1").write_bytes(header + packet + words)
    rest = on << 23 | times
    columns = [x, y, rest >> 16, rest >> 8 & 255, rest & 255]
    (folder / "ATIS").write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())
    with (folder / "NumPy").open("wb") as file:
        np.savez(file, t=times, x=x, y=y, p=on)


FORMATS_OF_EVENTS: dict[str, Callable[[Path], Events]] = {
    "AEDAT 2.0": cifar10_dvs.read_aedat,
    "AEDAT 3.1": lambda file: aedat.read_3_1(file, dvs128_gesture.KIND),
    "ATIS": lambda file: atis.read_atis(file, atis.N_MNIST),
    "NumPy": lambda file: recordings.read_npz(file, atis.N_MNIST),
}


def recorded(file: Path) -> str:
    """What a recording holds."""
    found = FORMATS_OF_EVENTS[file.name](file)
    return hashlib.sha256(b"".join(part.tobytes() for part in found)).hexdigest()


def word_files(folder: Path) -> None:
    """SHD, of one recording a word and split."""
    rng = np.random.default_rng(0)
    for name in ("shd_train.h5", "shd_test.h5"):
        with h5py.File(folder / name, "w") as file:
            for part, dtype in (("times", np.float32), ("units", np.int64)):
                data = file.create_dataset(f"spikes/{part}", 20, dtype=h5py.vlen_dtype(dtype))
                for i in range(20):
                    data[i] = rng.integers(0, 700, 50) / (700 if part == "times" else 1)
            file["labels"] = np.arange(20)


def spoken(folder: Path) -> str:
    """What these hold."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    found = load_dataset("shd", data_dir=str(folder), validation=4)
    digest = hashlib.sha256()
    for split in (found.train, found.validation, found.test):
        digest.update(split.images.tobytes() + split.labels.tobytes())
    return digest.hexdigest()


def subjects(place: Path) -> Iterator[tuple[str, Path, Callable[[Path], str], str]]:
    """(name, folder, what reads a copy of it, pattern of the files to damage) of all kinds."""
    for name in ("tiny", "images", "events", "words"):
        (place / name).mkdir(parents=True)
    word_files(place / "words")
    image_files(place / "images")
    event_files(place / "events")

    def tiny(copy: Path, skip_corrupt: bool = False) -> str:
        os.environ["XDG_CACHE_HOME"] = str(copy / "cache")
        return loaded(copy / "data", skip_corrupt)

    def anew(copy: Path, skip_corrupt: bool = False) -> str:
        shutil.rmtree(copy / "cache")
        return tiny(copy, skip_corrupt)

    def make() -> str:
        prepare(place / "tiny" / "data")
        return tiny(place / "tiny")

    apart(make)  # a process that has read records can't be forked
    yield "decoded cache", place / "tiny", tiny, "cache/seenn_jax/*/*"
    yield "records", place / "tiny", anew, "data/**/*.array_record*"
    skipping = lambda copy: anew(copy, skip_corrupt=True)  # noqa: E731
    yield "records, skip_corrupt", place / "tiny", skipping, "data/**/*.array_record*"
    yield "JSON of TFDS", place / "tiny", anew, "data/**/*.json"
    yield "class names of TFDS", place / "tiny", anew, "data/**/*.txt"
    yield "HDF5 of SHD", place / "words", spoken, "*.h5"
    for format in FORMATS:
        file = f"a.{format.lower()}"
        yield f"images, {format}", place / "images", lambda copy, f=file: shown(copy / f), file
    for file in FORMATS_OF_EVENTS:
        name = f"event files, {file}"
        yield name, place / "events", lambda copy, f=file: recorded(copy / f), file


# --- Tries ---------------------------------------------------------------------------------------


def apart(work: Callable[[], str], seconds: int = SECONDS) -> str:
    """What `work` answers in a process of its own, or "crash" or "hang"."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        try:
            answer = work()
        except BaseException:
            answer = f"traceback {traceback.format_exc(limit=-3)}"
        os.write(write, answer.encode(errors="replace")[:60_000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "hang" if os.WTERMSIG(status) == signal.SIGALRM else f"crash {status}"
    return answer


def outcome(read: Callable[[Path], str], copy: Path, right: str) -> str:
    """What becomes of reading a damaged copy."""
    said = io.StringIO()
    logging.basicConfig(stream=said, level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        found = read(copy)
    except (UserError, Corrupt) as error:
        sentence = str(error)
        bad = "\n" in sentence or " at 0x" in sentence or not sentence.isprintable()
        return f"traceback no sentence: {sentence}" if bad else f"sentence {sentence}"
    except OSError as error:  # which the command line says in a sentence
        return f"sentence {error}" if error.filename else f"traceback {error}"
    if found == right:
        return "right"
    return "right left out" if "left out" in said.getvalue() else "silent"


def damaged(tries: int, pictures: int, place: Path, details: Path | None) -> dict[str, Counter]:
    """{what: {outcome: how often}} of so many damaged files, and images and recordings."""
    import tensorflow_datasets  # noqa: F401 - once, for all tries

    made = list(subjects(place))
    rng, table = random.Random(0), {}
    for name, folder, read, pattern in made:
        whole = Path(shutil.copytree(folder, place / f"whole {name}"))
        files = sorted(path.relative_to(folder) for path in folder.glob(pattern))
        right = apart(functools.partial(read, folder))
        counts = table[name] = Counter()
        alone = [each for each, *_ in made if each.startswith(ALONE)]
        each = pictures / len(alone) if name in alone else tries / (len(made) - len(alone))
        for number in range(math.ceil(each)):
            kind = rng.choices(list(DAMAGES), (6, 2, 2, 1))[0]
            file = files[number % len(files)]
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)  # under its path, by which the cache knows it
            damage(folder / file, kind, rng)
            answer = apart(functools.partial(outcome, read, folder, right))
            counts[answer.split()[0]] += 1
            tell(details, [name, str(file), kind, answer])
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
    return table


def tell(details: Path | None, what: list) -> None:
    """Add a line to the file of all tries."""
    if details:
        with details.open("a") as file:
            file.write(json.dumps(what) + "\n")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tries", type=int, default=600, help="damaged files of data sets")
    parser.add_argument("--pictures", type=int, default=600, help="damaged images, recordings")
    parser.add_argument("--details", type=Path, help="write a line of JSON for each try")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        table = damaged(asked.tries, asked.pictures, Path(scratch), asked.details)
    print("|  | tries |", " | ".join(OUTCOMES), "|")
    print("| --- " * (len(OUTCOMES) + 2) + "|")
    for name, counts in table.items():
        found = " | ".join(str(counts[each]) for each in OUTCOMES)
        print(f"| {name} | {counts.total()} | {found} |")


if __name__ == "__main__":
    main()
