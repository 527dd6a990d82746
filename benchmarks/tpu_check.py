"""Compile training and inference for TPUs on a machine without one, and see whether they fit.

    make tpu-check

The compiler in libtpu knows each chip; it tells the peak memory of a program and fails where that
is more than the chip has. The training step is that of train.py, for the whole topology; the slots
engine that of evaluate.py.
"""

import functools
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import records
from absl import app, flags
from flax import nnx
from jax.experimental import topologies

from seenn_jax import devices, engine, exits
from seenn_jax.config import default_config
from seenn_jax.data import normalize
from seenn_jax.models.network import inference_network
from seenn_jax.run import build, folder
from seenn_jax.training.feed import jitted_steps
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import Given, initial_state, train_step


class Chip(NamedTuple):
    """What there is to fit."""

    gib: int  # memory of a core
    batch_sizes: tuple[int, ...]  # images of a step for each core, to try


# What Colab has had; configs/cifar10_colab.py is 32 on each core of the first, 256 on the others.
TOPOLOGIES = {
    "v2:2x2": Chip(8, (32, 64)),
    "v5e:1x1": Chip(16, (128, 256)),
    "v6e:1x1": Chip(32, (256,)),
}
TOPOLOGY = flags.DEFINE_list("topologies", list(TOPOLOGIES), "What to compile for.")
BATCH = flags.DEFINE_list("batch_sizes", [], "Images of a step for each core; else the chip's.")
SLOTS = flags.DEFINE_integer("slots", 256, "Slots of each core, to evaluate.")
MODEL = flags.DEFINE_string("model", "resnet19", "Network.")
WIDTH = flags.DEFINE_integer("width", 128, "Channels of its first layer.")
TIMESTEPS = flags.DEFINE_integer("timesteps", 4, "T.")
STEPS = flags.DEFINE_integer("steps", 50, "Steps in a call.")
WHAT = flags.DEFINE_list("what", ["train", "slots"], "Programs to compile.")
EFFORT = flags.DEFINE_float(
    "effort",
    -1.0,
    "Of the compiler for a fast program, from -1 to 1; 0 is its default. The least compiles five "
    "times faster and changes the memory by less than 1 %.",
)
REMAT = flags.DEFINE_bool("remat", False, "Train with config.remat.")
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")
IMAGES = 45_000  # of CIFAR-10's training split
FACTS = folder.DataFacts((32, 32, 3), 10, [0.5] * 3, [0.25] * 3)


def cores_of(topology: str) -> list:
    """The cores of a topology, as devices that programs can be compiled for."""
    chips = [int(side) for side in topology.split(":")[1].split("x")]
    bounds = (*chips, 1)  # one host
    description = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, chips_per_host_bounds=bounds
    )
    return list(description.devices)


def config_of(batch_size: int):
    """The settings of configs/cifar10.py that matter here."""
    config = default_config()
    config.model.update(name=MODEL.value, width=WIDTH.value, dtype="bfloat16")
    config.augment.update(crop=4, flip=True, cutout=8)
    config.ema = 0.999
    config.batch_size, config.remat = batch_size, REMAT.value
    return config


def lower_training(cores: list, batch: int):
    """The training step of train.py, `batch` images for each core."""
    config = config_of(batch * len(cores))
    optimizer = make_optimizer(config, steps=1000)
    graph, params, stats = nnx.split(
        nnx.eval_shape(lambda: build.network(config, FACTS)), nnx.Param, nnx.BatchStat
    )
    state = jax.eval_shape(
        lambda params, stats: initial_state(nnx.merge(graph, params, stats), optimizer, config.ema)[
            1
        ],
        params,
        stats,
    )
    step = functools.partial(
        train_step,
        graph=graph,
        optimizer=optimizer,
        config=config,
        normalization=FACTS.normalization,
        num_classes=FACTS.num_classes,
        timesteps=TIMESTEPS.value,
    )
    jitted = jitted_steps(
        step,
        steps=min(STEPS.value, IMAGES // config.batch_size),  # of one epoch
        batch_size=config.batch_size,
        among=cores,
    )
    images = jax.ShapeDtypeStruct((IMAGES, *FACTS.image_shape), np.uint8)
    labels = jax.ShapeDtypeStruct((IMAGES,), np.int32)
    given = jax.eval_shape(lambda: Given(np.uint32(0)))
    return jitted.lower(state, given, images, labels)


def lower_slots(cores: list, slots: int):
    """Early exit as evaluate.py runs it, on CIFAR-10's test split, `slots` on each core."""
    config = config_of(slots)
    model = nnx.eval_shape(lambda: build.network(config, FACTS))
    graph, state = nnx.split(model)
    transform = functools.partial(
        normalize,
        mean=FACTS.normalization[0],
        std=FACTS.normalization[1],
        dtype=config.model.dtype,
    )

    def evaluated(state, images):
        network = inference_network(nnx.merge(graph, state), FACTS.image_shape, TIMESTEPS.value)

        def share(params, images, count):
            return engine.run_network(
                "slots",
                network,
                params,
                images,
                exits.above(exits.confidence, 0.9),
                TIMESTEPS.value,
                slots,
                transform=transform,
                count=count,
            )

        return engine.over_devices(share, cores)(network.params, images)

    images = jax.ShapeDtypeStruct((10_000, *FACTS.image_shape), np.uint8)
    copied = devices.everywhere(cores)
    return jax.jit(evaluated, in_shardings=copied).lower(state, images)


PROGRAMS = {"train": lower_training, "slots": lower_slots}


def check(topology: str, what: str, batch: int) -> dict:
    """Compile one program: its peak memory, the chip's, and how long it took."""
    cores = cores_of(topology)
    lowered = PROGRAMS[what](cores, batch)
    started, busy = time.perf_counter(), time.process_time()
    try:
        compiled, failure = lowered.compile(), ""
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        failure = str(error)
    row = {
        "topology": topology,
        "cores": len(cores),
        "program": what,
        "remat": what == "train" and REMAT.value,
        "batch_per_core": batch,
        "timesteps": TIMESTEPS.value,
        "chip_gib": TOPOLOGIES[topology].gib,
        "effort": EFFORT.value,
        "compile_seconds": time.perf_counter() - started,
        "compile_cpu_seconds": time.process_time() - busy,
    }
    if failure:
        # What it would need, as the compiler says.
        used = re.search(r"temporaries \(([0-9.]+)([GM])\) exceeds", failure)
        unit = {"G": 1, "M": 1 / 1024}
        return row | {"fits": False, "peak_gib": float(used[1]) * unit[used[2]] if used else None}
    memory = compiled.memory_analysis()
    # Outputs that alias arguments, as the donated state does, are counted once.
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    ) / 2**30
    # What the compiler expects of the fusions it has laid out, those of a loop once.
    cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', compiled.as_text())))
    return row | {"fits": peak <= TOPOLOGIES[topology].gib, "peak_gib": peak, "cycles": cycles}


def libtpu_version() -> str:
    """Of the compiler, by the folder beside it."""
    folder = Path(os.environ["TPU_LIBRARY_PATH"]).parent.parent
    return next(folder.glob("libtpu-*.dist-info")).stem.split("-")[1]


def main(_) -> None:
    """Print the table, row by row, and exit with 1 if a program does not fit."""
    jax.config.update("jax_exec_time_optimization_effort", EFFORT.value)
    print("topology  cores  program  images/core  peak GiB  of GiB  compiled in (CPU) s")
    rows = []
    for topology in TOPOLOGY.value:
        batches = BATCH.value or TOPOLOGIES[topology].batch_sizes
        for what in WHAT.value:
            for batch in batches if what == "train" else [SLOTS.value]:
                row = check(topology, what, int(batch))
                rows.append(row)
                print(
                    f"{topology:9} {row['cores']:5}  {what:7}  {batch:>11}  "
                    f"{row['peak_gib'] or math.nan:8.2f}  {row['chip_gib']:6}  "
                    f"{row['compile_seconds']:.0f} ({row['compile_cpu_seconds']:.0f})"
                    f"{'' if row['fits'] else '  DOES NOT FIT'}",
                    flush=True,
                )
    if JSON.value:
        what = (
            f"{MODEL.value}, width {WIDTH.value}, T = {TIMESTEPS.value}, bfloat16, compiled ahead "
            "of time for TPUs and not run"
        )
        record = records.record(what, {"rows": rows})
        record["versions"]["libtpu"] = libtpu_version()
        records.add(JSON.value, record)
    sys.exit(0 if all(row["fits"] for row in rows) else 1)


if __name__ == "__main__":
    app.run(main)
