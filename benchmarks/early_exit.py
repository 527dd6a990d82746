"""Throughput of the three ways to exit early: full, masked and slots.

    python benchmarks/early_exit.py --slots=256,512,1024
    python benchmarks/early_exit.py --workdir=runs/cifar10 --threshold=0.81

Prescribed exit times (seeded, truncated geometric distribution over 1..T) of several averages are
run by slots and by masked batches. "Ideal" is the throughput of the tick-by-tick run of all T at
the same number of slots, times T / average. A trained run (--workdir) gives the weights, the images
(its test split, repeated) and, with --threshold, exits by confidence; without one the weights are
random and the images noise. Also printed: all T ticks at once, and the latency of one image.
"""

import contextlib
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import records
from absl import app, flags, logging

from seenn_jax import devices, engine, exits, provenance
from seenn_jax.config import default_config
from seenn_jax.data import normalize
from seenn_jax.models import fused
from seenn_jax.models.network import inference_network
from seenn_jax.models.precision import PRECISIONS
from seenn_jax.run import build, folder
from seenn_jax.run.inference import load

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run; else random weights.")
MODEL = flags.DEFINE_string("model", "resnet19", "Network, without --workdir.")
WIDTH = flags.DEFINE_integer("width", 128, "Channels of its first layer, without --workdir.")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Side of the images, without --workdir.")
DTYPE = flags.DEFINE_string(
    "dtype", None, "bfloat16, float32 or int8. Default: the run's, or bfloat16."
)
TIMESTEPS = flags.DEFINE_integer("timesteps", 4, "T.")
SAMPLES = flags.DEFINE_integer("samples", 50_000, "Images in a timed run.")
SLOTS = flags.DEFINE_list("slots", ["256", "512", "1024"], "Numbers of slots to try.")
AVERAGES = flags.DEFINE_list("averages", ["1.1", "1.2", "1.5", "2.0"], "Average exit times.")
THRESHOLD = flags.DEFINE_float("threshold", None, "Of confidence: also exit by it.")
METHODS = flags.DEFINE_list("methods", list(engine.METHODS), "What is run: full, masked, slots.")
LATENCY = flags.DEFINE_bool("latency", True, "Measure the latency of one image, too.")
APART = flags.DEFINE_bool("apart", False, "No layer and its neurons in one kernel.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs of each; the median counts.")
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")


def prescribed_times(average: float, timesteps: int, samples: int) -> np.ndarray:
    """Seeded exit times of a truncated geometric distribution with (nearly) that average."""
    t = np.arange(1, timesteps + 1)
    low, high = 1e-9, 1.0
    for _ in range(100):
        ratio = (low + high) / 2
        shares = ratio**t / np.sum(ratio**t)
        low, high = (ratio, high) if shares @ t < average else (low, ratio)
    return np.random.default_rng(0).choice(t, samples, p=shares).astype(np.int32)


def measured() -> tuple:
    """(network, transform, images uint8 [N, H, W, C], config, what they are in words)."""
    if WORKDIR.value:
        run = load(WORKDIR.value, precision=DTYPE.value, timesteps=TIMESTEPS.value)
        model, images = run.config.model, run.dataset.test.images
        images = images[np.arange(SAMPLES.value) % len(images)]
        what = f"{model.name}, width {model.width}, trained, {run.config.data.name}, "
        return run.network, run.transform, images, run.config, what + run.precision
    config = default_config()
    dtype = DTYPE.value or "bfloat16"
    row = PRECISIONS[dtype]
    config.model.update(name=MODEL.value, width=WIDTH.value, dtype=row.dtype or "bfloat16")
    shape = (IMAGE_SIZE.value, IMAGE_SIZE.value, 3)
    facts = folder.DataFacts(shape, 10, [0.5] * 3, [0.25] * 3)
    network = inference_network(
        build.network(config, facts), shape, TIMESTEPS.value, prepare=row.prepare
    )
    mean, std = facts.normalization
    transform = functools.partial(normalize, mean=mean, std=std, dtype=config.model.dtype)
    images = np.random.default_rng(0).integers(0, 256, (SAMPLES.value, *shape), np.uint8)
    what = f"{MODEL.value}, width {WIDTH.value}, random weights, noise, {dtype}"
    return network, transform, images, config, what


def seconds_of(function, *args) -> float:
    """Median wall-clock of `function`, which is compiled."""
    jax.block_until_ready(function(*args))
    seconds = []
    for _ in range(REPEATS.value):
        started = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def compiled_runs(network, transform) -> tuple:
    """(until prescribed times, until confident), `(method, slots, params, images, which)`."""

    def run(criterion_of, method, slots, params, images, given):
        return engine.run_network(
            method,
            network,
            params,
            images,
            criterion_of(given),
            TIMESTEPS.value,
            slots,
            transform=transform,
        )

    def confident(threshold):
        return exits.above(exits.confidence, threshold)

    jitted = devices.for_inference(run, static_argnums=(0, 1, 2))
    return functools.partial(jitted, exits.prescribed), functools.partial(jitted, confident)


def row_of(method, slots, seconds, average, ticks_per_second=None) -> dict:
    """A row of the table, which is printed."""
    rate = SAMPLES.value / seconds
    share = None if ticks_per_second is None else rate * average / ticks_per_second
    print(
        f"{method:12} slots {slots:5}  average {average:.3f}  {rate:10,.0f} images/s"
        + ("" if share is None else f"  {share:.3f} of ideal"),
        flush=True,
    )
    return {
        "method": method,
        "slots": slots,
        "average_timesteps": average,
        "images_per_second": rate,
        "share_of_ideal": share,
    }


def by_prescribed_times(by_times, slots, params, images) -> tuple[list[dict], float | None]:
    """(rows, ticks a second of the tick-by-tick run), as `METHODS` and `AVERAGES` ask."""
    timesteps, samples = TIMESTEPS.value, SAMPLES.value
    all_ticks = jnp.full(samples, timesteps, jnp.int32)
    times = [prescribed_times(float(a), timesteps, samples) for a in AVERAGES.value]
    times.sort(key=np.mean)
    rows, ticks_per_second = [], None

    def measure(method, asked, name=None):
        asked = jnp.asarray(asked)
        seconds = seconds_of(by_times, method, slots, params, images, asked)
        average = float(asked.mean())
        rows.append(row_of(name or method, slots, seconds, average, ticks_per_second))
        return seconds

    if "full" in METHODS.value:
        measure("full", all_ticks)
    if "masked" in METHODS.value:
        seconds = measure("masked", all_ticks, "tick by tick")
        ticks_per_second = samples * timesteps / seconds
        measure("masked", times[0])
    for asked in times if "slots" in METHODS.value else ():
        measure("slots", asked)
    return rows, ticks_per_second


def by_threshold(by_confidence, slots, params, images, ticks_per_second) -> list[dict]:
    """Rows of slots and of all ticks at once, the last with the shares that differ."""
    threshold = jnp.float32(THRESHOLD.value)
    rows, found = [], {}
    for method in ("slots", "full"):
        arguments = (method, slots, params, images, threshold)
        found[method] = exited = by_confidence(*arguments)
        seconds = seconds_of(by_confidence, *arguments)
        average = float(exited.timesteps.mean())
        rows.append(row_of(f"{method}, conf.", slots, seconds, average, ticks_per_second))
    one, other = found["slots"], found["full"]
    times = float(jnp.mean(one.timesteps != other.timesteps))
    answers = float(jnp.mean(one.logits.argmax(-1) != other.logits.argmax(-1)))
    rows[-1] |= {"share_of_times_that_differ": times, "share_of_answers_that_differ": answers}
    print(f"slots against full: {times:.2%} of exit times and {answers:.2%} of answers differ")
    return rows


def latencies(by_times, params, image) -> list[float]:
    """Milliseconds of one image at t = 1 .. T."""
    found = []
    for t in range(1, TIMESTEPS.value + 1):
        times = jnp.full(1, t, jnp.int32)
        found.append(1e3 * seconds_of(by_times, "slots", 1, params, image, times))
        print(f"latency of one image: {found[-1]:.2f} ms at t = {t}", flush=True)
    return found


def main(_) -> None:
    """Measure and print, a line for each measurement as it comes."""
    logging.set_verbosity(logging.ERROR)
    with fused.apart() if APART.value else contextlib.nullcontext():
        measure_all()


def measure_all() -> None:
    """As `main`."""
    network, transform, images, config, what = measured()
    timesteps, samples = TIMESTEPS.value, SAMPLES.value
    print(f"{what}; T = {timesteps}, {samples:,} images, {provenance.device()}", flush=True)
    arguments = (network.params, jax.device_put(images))
    by_times, by_confidence = compiled_runs(network, transform)
    rows = []
    for slots in map(int, SLOTS.value):
        found, ticks_per_second = by_prescribed_times(by_times, slots, *arguments)
        rows += found
        if THRESHOLD.value is not None:
            rows += by_threshold(by_confidence, slots, *arguments, ticks_per_second)
    latency = latencies(by_times, network.params, images[:1]) if LATENCY.value else []
    if JSON.value:
        dtype = DTYPE.value or config.model.dtype
        figures = {
            "timesteps": timesteps,
            "samples": samples,
            "rows": [{"dtype": dtype, **row} for row in rows],
            "latency_ms": latency,
        }
        changes = records.differing(config, default_config())
        record = records.record(f"Exits of {what}", figures, config=changes, seed=config.seed)
        records.add(JSON.value, record)


if __name__ == "__main__":
    app.run(main)
