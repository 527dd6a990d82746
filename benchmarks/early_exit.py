"""Throughput of the three ways to exit early: full, masked and slots.

    python benchmarks/early_exit.py --slots=256,512,1024
    python benchmarks/early_exit.py --workdir=runs/cifar10 --threshold=0.81

Prescribed exit times (seeded, truncated geometric distribution over 1..T) of several averages are
run by slots and by masked batches. "Ideal" is the throughput of the tick-by-tick run of all T at
the same number of slots, times T / average. A trained run (--workdir) gives the weights, the images
(its test split, repeated) and, with --threshold, exits by confidence; without one the weights are
random and the images noise. Also printed: all T ticks at once, and the latency of one image.
"""

import functools
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from seenn_jax import engine, exits, provenance, run
from seenn_jax.config import default_config
from seenn_jax.data import load_dataset, normalize
from seenn_jax.evaluation.evaluator import load_model
from seenn_jax.models import inference_network

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
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs of each; the median counts.")
JSON = flags.DEFINE_string("json", None, "Write all results to this file.")


def prescribed_times(average: float, timesteps: int, samples: int) -> np.ndarray:
    """Seeded exit times of a truncated geometric distribution with (nearly) that average."""
    t = np.arange(1, timesteps + 1)
    low, high = 1e-9, 1.0
    for _ in range(100):
        ratio = (low + high) / 2
        shares = ratio**t / np.sum(ratio**t)
        low, high = (ratio, high) if shares @ t < average else (low, ratio)
    return np.random.default_rng(0).choice(t, samples, p=shares).astype(np.int32)


def load() -> tuple:
    """(network, transform, images uint8 [N, H, W, C], description)."""
    int8 = DTYPE.value == "int8"
    if WORKDIR.value:
        config, facts = run.load(Path(WORKDIR.value))
        config.model.dtype = config.model.dtype if int8 else DTYPE.value or config.model.dtype
        model, _ = load_model(Path(WORKDIR.value), config, facts)
        images = load_dataset(
            config.data.name, data_dir=config.data.dir or None, validation=config.data.validation
        ).test.images
        images = images[np.arange(SAMPLES.value) % len(images)]
        what = f"{config.model.name}, width {config.model.width}, trained, {config.data.name}"
    else:
        config = default_config()
        dtype = "bfloat16" if int8 else DTYPE.value or "bfloat16"
        config.model.update(name=MODEL.value, width=WIDTH.value, dtype=dtype)
        shape = (IMAGE_SIZE.value, IMAGE_SIZE.value, 3)
        facts = run.DataFacts(shape, 10, [0.5] * 3, [0.25] * 3)
        model = run.build(config, facts)
        images = np.random.default_rng(0).integers(0, 256, (SAMPLES.value, *shape), np.uint8)
        what = f"{MODEL.value}, width {WIDTH.value}, random weights, noise"
    transform = functools.partial(
        normalize, mean=facts.normalization[0], std=facts.normalization[1], dtype=config.model.dtype
    )
    network = inference_network(model, facts.image_shape, TIMESTEPS.value, int8=int8)
    return network, transform, images, f"{what}, {DTYPE.value or config.model.dtype}"


def seconds_of(function, *args) -> float:
    """Median wall-clock of `function`, which is compiled."""
    jax.block_until_ready(function(*args))
    seconds = []
    for _ in range(REPEATS.value):
        started = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main(_) -> None:
    """Measure and print, a line for each measurement as it comes."""
    logging.set_verbosity(logging.ERROR)
    network, transform, images, what = load()
    images = jax.device_put(images)
    timesteps, samples = TIMESTEPS.value, len(images)
    rows = []

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def by_times(method, slots, params, images, times):
        criterion = engine.prescribed(times)
        return engine.run_network(
            method, network, params, images, criterion, timesteps, slots, transform=transform
        )

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def by_confidence(method, slots, params, images, threshold):
        criterion = engine.above(exits.confidence, threshold)
        return engine.run_network(
            method, network, params, images, criterion, timesteps, slots, transform=transform
        )

    def report(method, slots, seconds, average, ticks_per_second=None):
        ideal = ticks_per_second and ticks_per_second / average
        row = {
            "method": method,
            "slots": slots,
            "average_timesteps": average,
            "images_per_second": samples / seconds,
            "share_of_ideal": None if ideal is None else samples / seconds / ideal,
        }
        rows.append(row)
        share = "" if ideal is None else f"  {row['share_of_ideal']:.3f} of ideal"
        print(
            f"{method:12} slots {slots:5}  average {average:.3f}  "
            f"{row['images_per_second']:10,.0f} images/s{share}",
            flush=True,
        )

    print(f"{what}; T = {timesteps}, {samples:,} images, {provenance.device()}", flush=True)
    all_ticks = jnp.full(samples, timesteps, jnp.int32)
    times = {float(a): prescribed_times(float(a), timesteps, samples) for a in AVERAGES.value}
    for slots in map(int, SLOTS.value):
        arguments = (network.params, images)
        ticks_per_second = None
        if "full" in METHODS.value:
            seconds = seconds_of(by_times, "full", slots, *arguments, all_ticks)
            report("full", slots, seconds, float(timesteps))
        if "masked" in METHODS.value:
            seconds = seconds_of(by_times, "masked", slots, *arguments, all_ticks)
            report("tick by tick", slots, seconds, float(timesteps))
            ticks_per_second = samples * timesteps / seconds
            asked = jnp.asarray(times[min(times)])
            seconds = seconds_of(by_times, "masked", slots, *arguments, asked)
            report("masked", slots, seconds, float(asked.mean()), ticks_per_second)
        for asked in times.values() if "slots" in METHODS.value else ():
            seconds = seconds_of(by_times, "slots", slots, *arguments, jnp.asarray(asked))
            report("slots", slots, seconds, float(asked.mean()), ticks_per_second)
        if THRESHOLD.value is not None:
            threshold = jnp.float32(THRESHOLD.value)
            found = {}
            for method in ("slots", "full"):
                exited = by_confidence(method, slots, *arguments, threshold)
                found[method] = exited
                average = float(exited.timesteps.mean())
                seconds = seconds_of(by_confidence, method, slots, *arguments, threshold)
                report(f"{method}, conf.", slots, seconds, average, ticks_per_second)
            rows[-1]["share_of_times_that_differ"] = float(
                jnp.mean(found["slots"].timesteps != found["full"].timesteps)
            )
            rows[-1]["share_of_answers_that_differ"] = float(
                jnp.mean(found["slots"].logits.argmax(-1) != found["full"].logits.argmax(-1))
            )
            print(
                f"slots against full: {rows[-1]['share_of_times_that_differ']:.2%} of exit times "
                f"and {rows[-1]['share_of_answers_that_differ']:.2%} of answers differ"
            )
    one, latency = images[:1], {}
    for t in range(1, timesteps + 1) if LATENCY.value else ():
        times = jnp.full(1, t, jnp.int32)
        latency[t] = 1e3 * seconds_of(by_times, "slots", 1, network.params, one, times)
        print(f"latency of one image: {latency[t]:.2f} ms at t = {t}", flush=True)
    if JSON.value:
        result = {
            "what": what,
            "timesteps": timesteps,
            "samples": samples,
            "rows": rows,
            "latency_ms": latency,
            "revision": provenance.revision(),
            "versions": provenance.versions(),
            "device": provenance.device(),
        }
        Path(JSON.value).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
