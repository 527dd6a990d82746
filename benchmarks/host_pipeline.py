"""How many images a second the host reads, decodes and crops, by number of worker processes.

    python benchmarks/host_pipeline.py --images=4096 --workers=1,2,4,8,16

Makes an imagenet2012 in the layout of TFDS (array_record, its version and features) from smooth
random JPEGs of 500 x 375 pixels and about 110 kB, and streams it as train.py does. The files come
from the page cache: what is measured is the processors and not the disk. Pillow is timed beside
OpenCV on one core, where that is installed.
"""

import functools
import importlib.util
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import records
from absl import app, flags
from PIL import Image

from seenn_jax.data import Batches, Stream, load_streamed
from seenn_jax.data.images import Framing, Record, cores, decode, random_box, resized

DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of the data, made where it is not there. Default: a temporary one."
)
IMAGES = flags.DEFINE_integer("images", 4096, "JPEGs to make.")
SIDE = flags.DEFINE_integer("side", 224, "Of the crops, in pixels.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images in a batch.")
WORKERS = flags.DEFINE_list("workers", ["1", "2", "4", "8", "16"], "Numbers of worker processes.")
SECONDS = flags.DEFINE_float("seconds", 15, "Measured for each, at least.")
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")

QUALITY, NOISE = 95, 9.0  # which together give the size


def picture(number: int) -> np.ndarray:
    """A smooth random picture with a little noise, [375, 500, 3]."""
    rng = np.random.default_rng(number)
    total = rng.normal(0, NOISE, (375, 500, 3))
    for spacing, weight in ((96, 0.5), (24, 0.25), (6, 0.15)):
        shape = (375 // spacing + 2, 500 // spacing + 2, 3)
        coarse = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        total += weight * np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), float)
    return np.clip(total, 0, 255).astype(np.uint8)


def jpeg(number: int) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def prepare(folder: Path, count: int) -> None:
    """Let TFDS write imagenet2012 of so many images, and a few for validation, into `folder`."""
    import tensorflow_datasets as tfds

    class Made(tfds.builder_cls("imagenet2012"), skip_registration=True):
        def _split_generators(self, dl_manager):
            validation = self._generate_examples(range(count, count + 256))
            return {
                "train": self._generate_examples(range(count)),
                "validation": validation,
            }

        def _generate_examples(self, numbers):
            for i in numbers:
                yield i, {"file_name": f"{i}.JPEG", "image": jpeg(i), "label": i % 1000}

    Made.name = "imagenet2012"
    tfds.disable_progress_bar()
    Made(data_dir=folder, file_format="array_record").download_and_prepare()


def images_per_second(batches: Iterator, workers: int) -> tuple[float, float]:
    """(images/s once the buffers that the start filled are used up, seconds to the first batch)."""
    started = time.perf_counter()
    next(batches)
    first = time.perf_counter() - started
    for _ in range(4 * workers):
        next(batches)
    started, count = time.perf_counter(), 0
    # Whole rounds of the workers, each of which makes one batch in its turn.
    while time.perf_counter() - started < SECONDS.value:
        for _ in range(workers):
            next(batches)
        count += workers
    return count * BATCH_SIZE.value / (time.perf_counter() - started), first


def milliseconds(function: Callable, files: list[bytes]) -> float:
    """Of one call, on one core: the median over the files, each after a first call."""
    seconds = []
    for data in files:
        function(data)
        started = time.perf_counter()
        function(data)
        seconds.append(time.perf_counter() - started)
    return 1e3 * statistics.median(seconds)


def decoders(files: list[bytes]) -> dict[str, float]:
    """Milliseconds an image to decode, and to decode and bring a middling crop to size."""
    box, side = (60, 40, 400, 340), SIDE.value

    def pillow(data):
        return decode(Record(data, 0, ""))

    found = {
        "pillow_decode": milliseconds(lambda data: np.asarray(pillow(data)), files),
        "pillow_decode_and_crop": milliseconds(lambda x: resized(pillow(x), box, side), files),
    }
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)

        def opencv(data):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

        def opencv_crop(data):
            left, top, right, bottom = box
            crop = opencv(data)[top:bottom, left:right]
            return cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)

        found["opencv_decode"] = milliseconds(opencv, files)
        found["opencv_decode_and_crop"] = milliseconds(opencv_crop, files)
    return found


def measure(folder: Path) -> dict:
    """Prepare the data where they are not there, and stream them."""
    if not (folder / "imagenet2012").exists():
        started = time.perf_counter()
        prepare(folder, IMAGES.value)
        print(f"made {IMAGES.value} images in {time.perf_counter() - started:.0f} s", flush=True)
    options = {"data_dir": str(folder), "validation": 1, "framing": Framing(SIDE.value)}
    dataset = load_streamed("imagenet2012", **options)
    files = [dataset.train.source[i].data for i in range(32)]
    kilobytes = statistics.mean(map(len, files)) / 1000
    print(f"{kilobytes:.0f} kB an image, {cores()} cores")
    return {
        "images": dataset.train.size + 1,
        "kilobytes": kilobytes,
        "side": SIDE.value,
        "batch_size": BATCH_SIZE.value,
        "cores": cores(),
        "one_core": one_core(files),
        "rows": [by_workers(dataset.train, workers) for workers in map(int, WORKERS.value)],
        "evaluation_images_per_second": evaluation(dataset.train),
    }


def one_core(files: list[bytes]) -> list[dict]:
    """Milliseconds an image of what one core does."""
    found = decoders(files)
    rng, box = np.random.default_rng(0), functools.partial(random_box, width=500, height=375)
    found["decode_and_random_crop"] = milliseconds(
        lambda data: resized(decode(Record(data, 0, "")), box(rng), SIDE.value), files * 8
    )
    for name, value in found.items():
        print(f"{name:24} {value:.2f} ms: {1e3 / value:,.0f} images/s a core at most")
    return [{"step": name, "milliseconds": value} for name, value in found.items()]


def by_workers(split: Stream, workers: int) -> dict:
    """Stream batches to train on from so many processes."""
    batches = Batches(split, BATCH_SIZE.value, seed=0, workers=workers)
    try:
        rate, first = images_per_second(batches, workers)
    finally:
        batches.close()
    used = min(max(workers, 1), cores())
    print(
        f"{workers:3} workers: {rate:7,.0f} images/s, {rate / used:5,.0f} a core; the first "
        f"batch after {first:.1f} s",
        flush=True,
    )
    return {
        "workers": workers,
        "images_per_second": rate,
        "images_per_second_and_core": rate / used,
        "seconds_to_first_batch": first,
    }


def evaluation(split: Stream) -> float:
    """Images/s read as evaluation reads them, by threads."""
    count = min(split.size, 2048)
    started = time.perf_counter()
    split.images[:count]
    rate = count / (time.perf_counter() - started)
    print(f"evaluation, threads: {rate:,.0f} images/s")
    return rate


def main(_) -> None:
    """Print the result, and add it where the flags say."""
    if DATA_DIR.value:
        figures = measure(Path(DATA_DIR.value).expanduser())
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(Path(folder))
    if JSON.value:
        what = "Images read, decoded and cropped by the host"
        records.add(JSON.value, records.record(what, figures))


if __name__ == "__main__":
    sys.exit(app.run(main))
