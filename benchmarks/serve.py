"""Latency against load of a server, of batches and of one image at a time.

    python benchmarks/serve.py --weights=digits-resnet8 --slots=16 --picture=serve.png
    python benchmarks/serve.py --workdir=runs/cifar10 --slots=256 --images=16 --ticks_per_call=1,2

Open loop: images come at random (Poisson, seeded), whatever the server does, and latency counts
from when an image was to come. "slots" is `serving.Server`, once for each of --ticks_per_call.
"batches" takes all that waits, --slots at most, runs it until its last sample has exited, and then
answers all; "one by one" does so with one image. Loads are shares of the throughput of the offline
engine with as many slots; at the last, "all at once", everything comes at the start: what is
answered a second then is the sustained throughput. With --images, that many come together, as one
request. The knee is the largest load at which p99 is at most --knee_ms.
"""

import functools
import statistics
import threading
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path

import jax
import numpy as np
import records
from absl import app, flags, logging

from seenn_jax import provenance
from seenn_jax.config import default_config
from seenn_jax.exits import Given
from seenn_jax.report.colours import LIGHT
from seenn_jax.report.pictures import canvas, rendered
from seenn_jax.run.inference import load
from seenn_jax.serving import Server

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run, evaluated, or ...")
WEIGHTS = flags.DEFINE_string("weights", "digits-resnet8", "... weights.")
PRECISION = flags.DEFINE_string("precision", None, "bfloat16, float32 or int8; else the run's.")
THRESHOLD = flags.DEFINE_float("threshold", None, "Of confidence; else the run's own exit.")
SLOTS = flags.DEFINE_integer("slots", 16, "And the size of batches.")
TICKS = flags.DEFINE_list("ticks_per_call", ["1", "2"], "Of the server: each is measured.")
IMAGES = flags.DEFINE_integer("images", 1, "That come together.")
LOADS = flags.DEFINE_list(
    "loads", ["0.1", "0.3", "0.5", "0.7", "0.8", "0.9", "1.0"], "Shares of offline throughput."
)
DURATION = flags.DEFINE_float("seconds", 5.0, "Of each measurement.")
KNEE = flags.DEFINE_float("knee_ms", 20.0, "p99 at the knee.")
SEED = flags.DEFINE_integer("seed", 0, "Of the arrivals.")
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")
PICTURE = flags.DEFINE_string("picture", None, "Draw p99 against load into this PNG.")
QUANTILES = (50, 90, 99)
OFFLINE_RUNS = 9  # whose median counts


class Batches:
    """The plain way: a batch of what waits, until its last sample has exited.

    Args:
      program: `(images [size, ...], count) -> Exited`.
    """

    def __init__(self, program, size, shape):
        self._program, self._size, self._shape = program, size, shape
        self._waiting, self._changed, self._ends = deque(), threading.Condition(), False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._answers(np.zeros((1, *self._shape), np.uint8))  # compiles
        self._thread.start()
        return self

    def __exit__(self, *_):
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()

    def submit_all(self, images):
        """A future of the answers."""
        future = Future()
        with self._changed:
            self._waiting.extend(
                (future, image, i) for i, image in enumerate(images, 1 - len(images))
            )
            self._changed.notify()
        return future

    def _answers(self, images):
        padded = np.zeros((self._size, *self._shape), np.uint8)
        padded[: len(images)] = images
        return jax.device_get(self._program(padded, np.int32(len(images))))

    def _run(self):
        while True:
            with self._changed:
                while not self._waiting and not self._ends:
                    self._changed.wait()
                if not self._waiting:
                    return
                count = min(self._size, len(self._waiting))
                taken = [self._waiting.popleft() for _ in range(count)]
            self._answers(np.stack([image for _, image, _ in taken]))
            for future, _, last in taken:
                if last == 0:  # of the images that came together
                    future.set_result(None)


def measure(server, images, rate, count):
    """(latencies in s, images answered a second) of `count` requests, `rate` a second."""
    random = np.random.default_rng(SEED.value)
    gaps = random.exponential(1 / rate, count) if rate else np.zeros(count)
    several, due = IMAGES.value, np.cumsum(gaps)
    ended = np.zeros(count)
    start = time.perf_counter() + 0.05
    due += start

    failed = []

    def answered(future, i):
        failed.extend(filter(None, [future.exception()]))
        ended[i] = time.perf_counter()

    # No future is kept, as a service keeps none: Python's garbage collector looks through all.
    for i in range(count):
        wait = due[i] - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        first = i * several % (len(images) - several + 1)
        future = server.submit_all(images[first : first + several])
        future.add_done_callback(functools.partial(answered, i=i))
    while not ended.all():
        time.sleep(0.001)
    if failed:
        raise failed[0]
    return ended - due, several * count / (ended.max() - start)


def row_of(name, ticks, load_, offline, able, server, images):
    """A row of the table, which is printed; `load_` is a share of `offline`, None: all at once.

    Args:
      able: images a second that the server is known to answer, for how many come at once.
    """
    rate = None if load_ is None else load_ * offline / IMAGES.value
    count = max(200, int((rate or able / IMAGES.value) * DURATION.value))
    latencies, answered = measure(server, images, rate, count)
    p50, p90, p99 = 1e3 * np.percentile(latencies, QUANTILES)
    load_words = "all at once" if load_ is None else f"load {load_ * offline:9,.0f}/s"
    print(
        f"{name:10} ticks {ticks or '':1}  {load_words:18} answered {answered:9,.0f}/s  "
        f"p50 {p50:8.2f}  p90 {p90:8.2f}  p99 {p99:8.2f} ms",
        flush=True,
    )
    return {
        "server": name,
        "ticks_per_call": ticks,
        "load": None if load_ is None else load_ * offline,
        "share_of_offline": load_,
        "answered_per_second": answered,
        **{"p50_ms": p50, "p90_ms": p90, "p99_ms": p99},
    }


def servers(run, exit, choice, how):
    """(name, ticks a call, server) of each that is measured."""
    for ticks in map(int, TICKS.value):
        options = {"queue": 10**9, "exit": exit, "choice": choice}
        yield "slots", ticks, Server(run, slots=SLOTS.value, ticks_per_call=ticks, **options)
    for name, size in (("batches", SLOTS.value), ("one by one", 1)):
        run.batch = size
        program = run.exiting(*how, "masked")
        yield name, None, Batches(program, size, run.facts.image_shape)
        run.batch = SLOTS.value


def knees(rows):
    """The largest load of each server at which p99 is small enough, None where at none."""
    found = {}
    for row in rows:
        key = f"{row['server']} {row['ticks_per_call'] or ''}".strip()
        found.setdefault(key, None)
        if row["load"] is not None and row["p99_ms"] <= KNEE.value:
            found[key] = max(row["load"], found[key] or 0)
    return found


def draw(rows, offline, path):
    """p99 against load, a curve for each server."""
    figure, axes = canvas(6.4, "images that come a second", "p99 of the latency (ms)")
    colors = iter(LIGHT[name] for name in ("exits", "oracle", "chosen", "static", "muted") * 3)
    names = dict.fromkeys((row["server"], row["ticks_per_call"]) for row in rows)
    for name in names:
        points = [row for row in rows if (row["server"], row["ticks_per_call"]) == name]
        points = [(row["load"], row["p99_ms"]) for row in points if row["load"]]
        label = f"{name[0]}, ticks a call: {name[1]}" if name[1] else name[0]
        axes.plot(*zip(*points, strict=True), marker="o", color=next(colors), label=label)
    axes.axvline(offline, color=LIGHT["rule"], label="offline engine")
    axes.set_yscale("log")
    axes.legend(loc="best", frameon=False, labelcolor=LIGHT["ink"], fontsize=9.5)
    Path(path).write_bytes(rendered(figure, format="png", dpi=150))


def main(_) -> None:
    """Measure and print, a line for each measurement as it comes."""
    logging.set_verbosity(logging.ERROR)
    run = load(WORKDIR.value or WEIGHTS.value, precision=PRECISION.value)
    run.batch = SLOTS.value
    choice = None if THRESHOLD.value is None else Given(THRESHOLD.value)
    exit = None if choice is None else "confidence"
    rule, chosen, temperatures = run.exit_of(exit, choice)
    how = (rule, chosen.value, temperatures)
    images = run.dataset.test.images
    many = images[np.arange(max(len(images), 64 * SLOTS.value)) % len(images)]
    runs = [run.run(many, *how, "slots") for _ in range(OFFLINE_RUNS)]
    offline = len(many) / statistics.median(seconds for _, seconds in runs)
    average = float(runs[0][0].timesteps.mean())
    print(
        f"{run.workdir}, {run.precision}, T = {run.timesteps}, {average:.3f} on average, "
        f"{SLOTS.value} slots, {provenance.device()}; offline {offline:,.0f} images/s",
        flush=True,
    )
    rows = []
    for name, ticks, server in servers(run, exit, choice, how):
        with server:
            for share in (*map(float, LOADS.value), None):
                if share is not None and _is_beyond(rows, name, ticks):
                    continue  # the queue of a larger load would only take longer
                able = _last(rows, name, ticks).get("answered_per_second", offline)
                rows.append(row_of(name, ticks, share, offline, able, server, images))
    print(f"knee at {KNEE.value:g} ms: {knees(rows)}")
    if PICTURE.value:
        draw(rows, offline, PICTURE.value)
    if JSON.value:
        figures = {
            "slots": SLOTS.value,
            "images_of_a_request": IMAGES.value,
            "average_timesteps": average,
            "offline_images_per_second": offline,
            "knee_ms": KNEE.value,
            "knees": knees(rows),
            "rows": rows,
        }
        what = f"Latency of requests against load: {run.config.model.name}, {run.config.data.name}"
        what += f", {run.precision}" * (PRECISION.value is not None)
        what += f", {IMAGES.value} images a request" * (IMAGES.value > 1)
        changes = records.differing(run.config, default_config())
        records.add(JSON.value, records.record(what, figures, config=changes, seed=SEED.value))


def _last(rows, name, ticks):
    """The latest row of this server, {} before the first."""
    mine = [row for row in rows if (row["server"], row["ticks_per_call"]) == (name, ticks)]
    return mine[-1] if mine else {}


def _is_beyond(rows, name, ticks):
    """Whether the last load of this server was far beyond what it can do."""
    last = _last(rows, name, ticks)
    return bool(last) and last["answered_per_second"] < 0.5 * last["load"]


if __name__ == "__main__":
    app.run(main)
