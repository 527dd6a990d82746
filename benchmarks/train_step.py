"""Speed of the training step, augmentation included, on data that live on the devices.

    python benchmarks/train_step.py --batch_size=512 --timesteps=4
    python benchmarks/train_step.py --model=resnet34 --width=64 --image_size=224 \\
        --num_classes=1000 --steps=1 --calls=20 --batch_size=64,128,256,512,1024
    python benchmarks/train_step.py --events --model=vggsnn --width=64 --image_size=48 \\
        --timesteps=10 --batch_size=64 --steps=4

Two runs with the same flags tell whether the same network comes out, by the checksum of its
parameters; what determinism costs, with for example

    python benchmarks/train_step.py --compiler_options=xla_gpu_deterministic_ops=True

All devices that jax sees share a batch; CUDA_VISIBLE_DEVICES=0 leaves it one.

Prints images/s (median of several calls of many steps), TFLOP/s (of the convolutions and matrix
products, forward and backward), memory, compile time, and what it ran with. Of several batch sizes,
ascending, those for which there is no memory are named. With one step a call the data on the device
are one batch, as where they are streamed.
"""

import contextlib
import functools
import gc
import statistics
import time
import zlib

import jax
import numpy as np
import records
from absl import app, flags
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax import devices
from seenn_jax.config import default_config
from seenn_jax.data import Dataset, Split
from seenn_jax.energy import layers
from seenn_jax.models import fused
from seenn_jax.run import build, folder
from seenn_jax.training.feed import jitted_steps
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import Given, initial_state, train_step

MODEL = flags.DEFINE_string("model", "resnet19", "Network.")
WIDTH = flags.DEFINE_integer("width", 128, "Channels of its first layer.")
BATCH_SIZE = flags.DEFINE_list("batch_size", ["256"], "Images in a step; several, with commas.")
GRADIENT = flags.DEFINE_string("gradient", "bptt", "config.gradient.")
ACTIVATION = flags.DEFINE_string("activation", "lif", "config.activation.")
TIMESTEPS = flags.DEFINE_integer("timesteps", 4, "T.")
DTYPE = flags.DEFINE_string("dtype", "bfloat16", "Of activations.")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Side of the random images.")
NUM_CLASSES = flags.DEFINE_integer("num_classes", 10, "Classes of the random labels.")
EVENTS = flags.DEFINE_bool(
    "events",
    False,
    "Frames of two channels, one a timestep, augmented as in configs/cifar10_dvs.py.",
)
REMAT = flags.DEFINE_bool("remat", False, "With config.remat.")
APART = flags.DEFINE_bool("apart", False, "No BatchNorm and its neurons in one kernel.")
STEPS = flags.DEFINE_integer("steps", 20, "Steps in a call.")
CALLS = flags.DEFINE_integer("calls", 5, "Timed calls.")
COMPILER_OPTIONS = flags.DEFINE_list(
    "compiler_options", [], "XLA's options for this program, NAME=VALUE, with commas."
)
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")


def random_dataset(images: int, size: int, classes: int) -> Dataset:
    """Random pixels (or event counts) and labels: real sizes, no download."""
    rng = np.random.default_rng(0)
    shape = (TIMESTEPS.value, size, size, 2) if EVENTS.value else (size, size, 3)
    pixels = rng.integers(0, 256, (images, *shape), dtype=np.uint8)
    split = Split(pixels, rng.integers(0, classes, images, dtype=np.int32))
    return Dataset("random", split, split, split, classes)


def config_of(batch_size: int) -> ConfigDict:
    """The settings that the flags ask for."""
    config = default_config()
    config.model.update(name=MODEL.value, width=WIDTH.value, dtype=DTYPE.value)
    config.timesteps, config.batch_size = TIMESTEPS.value, batch_size
    if EVENTS.value:
        config.augment.update(flip=True, roll=5, rotate=15.0, cutout=8)
    else:
        config.augment.update(crop=4, flip=True, cutout=8)
    config.ema, config.remat = 0.999, REMAT.value
    config.gradient, config.activation = GRADIENT.value, ACTIVATION.value
    return config


def flops_of(model: nnx.Module, image_shape: tuple[int, int, int]) -> int:
    """Operations of a step for one image, forward and backward."""
    # Of a still image the stem runs once; each of a layer's two gradients costs as much again.
    model = nnx.view(model, use_running_average=True)
    stem, *rest = (layer.macs for layer in layers(model, image_shape))
    stems = TIMESTEPS.value if EVENTS.value else 1
    return 3 * 2 * (stem * stems + sum(rest) * TIMESTEPS.value)


def seconds_of(compiled, state, data) -> tuple[list[float], float, str]:
    """(seconds a step of each call after the first, loss of the last, checksum of the network)."""
    seconds = []
    for _ in range(1 + CALLS.value):
        started = time.perf_counter()
        state, metrics = compiled(state, *data)
        jax.block_until_ready((state, metrics))
        seconds.append((time.perf_counter() - started) / STEPS.value)
    checksum = 0
    for leaf in jax.tree.leaves(state.params):
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    return seconds[1:], float(metrics["loss"]), f"{checksum:08x}"


def measure(config: ConfigDict) -> dict:
    """Compile and time the step."""
    batch_size = config.batch_size
    dataset = random_dataset(batch_size * STEPS.value, IMAGE_SIZE.value, NUM_CLASSES.value)
    facts = folder.DataFacts.of(dataset)
    optimizer = make_optimizer(config, steps=1000)
    graph, state = initial_state(build.network(config, facts), optimizer, config.ema)
    flops = flops_of(nnx.merge(graph, state.params, state.stats), facts.image_shape)
    step_function = functools.partial(
        train_step,
        graph=graph,
        optimizer=optimizer,
        config=config,
        normalization=facts.normalization,
        num_classes=facts.num_classes,
        timesteps=config.timesteps,
    )
    devices.check_batch(batch_size, 1)
    given = Given(np.uint32(config.seed))
    state, *data = devices.replicate((state, given, *dataset.train))
    started = time.perf_counter()
    jitted = jitted_steps(step_function, steps=STEPS.value, batch_size=batch_size)
    options = dict(option.split("=", 1) for option in COMPILER_OPTIONS.value)
    compiled = jitted.lower(state, *data).compile(options)
    compile_seconds = time.perf_counter() - started
    seconds, loss, checksum = seconds_of(compiled, state, data)
    step_seconds = statistics.median(seconds)
    memory = compiled.memory_analysis()
    return {
        "timesteps": config.timesteps,
        "batch_size": batch_size,
        "image_size": IMAGE_SIZE.value,
        "num_classes": NUM_CLASSES.value,
        "images_per_second": batch_size / step_seconds,
        "fastest_call": batch_size / min(seconds),
        "slowest_call": batch_size / max(seconds),
        "tflops": batch_size * flops / step_seconds / 1e12,
        "gflop_per_image": flops / 1e9,
        "memory_gib": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30,
        # Of all of this process so far, where the device tells.
        "peak_gib": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30,
        "compile_seconds": compile_seconds,
        "loss": loss,
        "checksum": checksum,
    }


def main(_) -> None:
    """Print the results, and add them where the flags say."""
    with fused.apart() if APART.value else contextlib.nullcontext():
        measure_all()


def measure_all() -> None:
    """As `main`."""
    fitting = []
    what = f"Training step of {MODEL.value}, width {WIDTH.value}, {DTYPE.value}, on noise"
    for batch_size in map(int, BATCH_SIZE.value):
        config = config_of(batch_size)
        try:
            figures = measure(config)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(f"batch_size         {batch_size} does not fit into the device's memory\n")
            gc.collect()  # what the failed step has left on the device
            continue
        fitting.append(batch_size)
        changes = records.differing(config, default_config())
        record = records.record(what, figures, config=changes, seed=config.seed)
        for name, value in {**record, **figures}.items():
            if name not in ("figures", "note"):
                shown = f"{value:.4g}" if isinstance(value, float) else value
                print(f"{name:18} {shown}")
        print(flush=True)
        if JSON.value:
            records.add(JSON.value, record)
    if len(BATCH_SIZE.value) > 1:
        print(f"largest batch_size that fits: {max(fitting, default='none of them')}")


if __name__ == "__main__":
    app.run(main)
