"""Compile training and inference for the TPUs of Colab, without one, and see whether they fit.

    make tpu-check
    make tpu-check FLAGS="--level=UNKNOWN --what=train --timesteps=1,4 --batch_sizes=256"

The compiler in libtpu knows each chip; it tells the peak memory of a program and fails where that
is more than the chip has. The training step is that of train.py, for the whole topology; the slots
engine that of evaluate.py.
"""

import functools
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import records
from absl import app, flags
from flax import nnx
from jax.experimental import topologies

from seenn_jax import devices, engine, exits
from seenn_jax.cli.overrides import load_config
from seenn_jax.data import normalize
from seenn_jax.models.network import inference_network
from seenn_jax.run import build, folder
from seenn_jax.training.feed import DEFAULT_STEPS_PER_CALL, jitted_steps, steps_per_call
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import Given, initial_state, train_step


class Chip(NamedTuple):
    """What there is to fit."""

    topology: str  # as libtpu calls it
    gib: int  # memory of a core
    batch_sizes: tuple[int, ...]  # images of a step for each core, to try


# As Colab calls them; each is one core. configs/cifar10_colab.py has 256 images a step.
CHIPS = {
    "v5e-1": Chip("v5e:1x1", 16, (128, 256)),
    "v6e-1": Chip("v6e:1x1", 32, (256, 512)),
}
CHIP = flags.DEFINE_list("chips", list(CHIPS), "What to compile for.")
CONFIG = flags.DEFINE_string("config", "cifar10_colab", "The experiment, on images as CIFAR-10's.")
BATCH = flags.DEFINE_list("batch_sizes", [], "Images of a step for each core; else the chip's.")
SLOTS = flags.DEFINE_integer("slots", 256, "Slots of each core, to evaluate.")
TIMESTEPS = flags.DEFINE_list("timesteps", [], "T, one or several; else the config's.")
WHAT = flags.DEFINE_list("what", ["train", "slots"], "Programs to compile.")
LEVEL = flags.DEFINE_enum(
    "level",
    "O0",
    ["O0", "O1", "O2", "O3", "UNKNOWN"],
    "What the compiler does for a fast program; UNKNOWN is its default, which takes four times as "
    "long as O0 and changes the memory by less than 1 %.",
)
REMAT = flags.DEFINE_bool("remat", False, "Train with config.remat.")
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")
NO_ESTIMATE = 2**63 - 1  # cycles, as the compiler writes where it has none
IMAGES = 45_000  # of CIFAR-10's training split
FACTS = folder.DataFacts((32, 32, 3), 10, [0.5] * 3, [0.25] * 3)


def cores_of(chip: Chip) -> list:
    """The cores of a chip, as devices that programs can be compiled for."""
    bounds = (*map(int, chip.topology.split(":")[1].split("x")), 1)  # one host
    description = topologies.get_topology_desc(
        platform="tpu", topology_name=chip.topology, chips_per_host_bounds=bounds
    )
    return list(description.devices)


def config_of(batch_size: int, timesteps: int | None = None):
    """The experiment with another batch, remat as the flag says, and T."""
    config = load_config(CONFIG.value)
    config.update(batch_size=batch_size, remat=REMAT.value)
    config.timesteps = timesteps or config.timesteps
    return config


def lower_training(cores: list, batch: int, timesteps: int | None):
    """The training step of train.py, `batch` images for each core."""
    config = config_of(batch * len(cores), timesteps)
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
        timesteps=config.timesteps,
    )
    jitted = jitted_steps(
        step,
        steps=steps_per_call(IMAGES // config.batch_size, DEFAULT_STEPS_PER_CALL),
        batch_size=config.batch_size,
        among=cores,
    )
    images = jax.ShapeDtypeStruct((IMAGES, *FACTS.image_shape), np.uint8)
    labels = jax.ShapeDtypeStruct((IMAGES,), np.int32)
    given = jax.eval_shape(lambda: Given(np.uint32(0)))
    return jitted.lower(state, given, images, labels)


def lower_slots(cores: list, slots: int, timesteps: int | None):
    """Early exit as evaluate.py runs it, on CIFAR-10's test split, `slots` on each core."""
    config = config_of(slots, timesteps)
    model = nnx.eval_shape(lambda: build.network(config, FACTS))
    graph, state = nnx.split(model)
    transform = functools.partial(
        normalize,
        mean=FACTS.normalization[0],
        std=FACTS.normalization[1],
        dtype=config.model.dtype,
    )

    def evaluated(state, images):
        network = inference_network(nnx.merge(graph, state), FACTS.image_shape, config.timesteps)

        def share(params, images, count):
            return engine.run_network(
                "slots",
                network,
                params,
                images,
                exits.above(exits.confidence, 0.9),
                config.timesteps,
                slots,
                transform=transform,
                count=count,
            )

        return engine.over_devices(share, cores)(network.params, images)

    images = jax.ShapeDtypeStruct((10_000, *FACTS.image_shape), np.uint8)
    copied = devices.everywhere(cores)
    return jax.jit(evaluated, in_shardings=copied).lower(state, images)


PROGRAMS = {"train": lower_training, "slots": lower_slots}


def check(name: str, what: str, batch: int, timesteps: int | None) -> dict:
    """Compile one program: its peak memory, the chip's, and how long it took."""
    chip = CHIPS[name]
    cores = cores_of(chip)
    lowered = PROGRAMS[what](cores, batch, timesteps)
    started, busy = time.perf_counter(), time.process_time()
    try:
        compiled, failure = lowered.compile(), ""
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        failure = str(error)
    row = {
        "chip": name,
        "cores": len(cores),
        "program": what,
        "remat": what == "train" and REMAT.value,
        "batch_per_core": batch,
        "timesteps": config_of(batch, timesteps).timesteps,
        "chip_gib": chip.gib,
        "level": LEVEL.value,
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
    cycles = list(map(int, re.findall(r'"estimated_cycles":"(\d+)"', compiled.as_text())))
    unknown = cycles.count(NO_ESTIMATE)
    return row | {
        "fits": peak <= chip.gib,
        "peak_gib": peak,
        "cycles": sum(cycles) - unknown * NO_ESTIMATE,
        "fusions": len(cycles),
        "fusions_without_estimate": unknown,
    }


def libtpu_version() -> str:
    """Of the compiler, by the folder beside it."""
    folder = Path(os.environ["TPU_LIBRARY_PATH"]).parent.parent
    return next(folder.glob("libtpu-*.dist-info")).stem.split("-")[1]


def asked_for() -> Iterator[tuple[str, str, int, int | None]]:
    """What to compile, as arguments of `check`."""
    for name in CHIP.value:
        for timesteps in map(int, TIMESTEPS.value) if TIMESTEPS.value else [None]:
            for what in WHAT.value:
                batches = BATCH.value or CHIPS[name].batch_sizes
                for batch in batches if what == "train" else [SLOTS.value]:
                    yield name, what, int(batch), timesteps


def record_of(rows: list[dict]) -> dict:
    """What is kept in results/."""
    record = records.record(
        f"Programs of configs/{CONFIG.value}.py{' with remat' * REMAT.value} for TPUs, "
        f"optimisation {LEVEL.value}",
        {"rows": rows},
        note="Compiled ahead of time on a CPU; peak of a core, the data set included; cycles as "
        "the compiler estimates them for its fusions, those of a loop once. No device: nothing was "
        "run.",
    )
    given = shlex.join(shlex.split(records.command())[2:])
    record["command"] = f'make tpu-check FLAGS="{given}"' if given else "make tpu-check"
    record["versions"]["libtpu"] = libtpu_version()
    return record | {"device": None}


def main(_) -> None:
    """Print the table, row by row, and exit with 1 if a program does not fit."""
    jax.config.update("jax_optimization_level", LEVEL.value)
    print("chip   cores  T  program  images/core  peak GiB  of GiB  compiled in (CPU) s")
    rows = []
    for arguments in asked_for():
        rows.append(row := check(*arguments))
        print(
            f"{row['chip']:5}  {row['cores']:5}  {row['timesteps']}  {row['program']:7}  "
            f"{row['batch_per_core']:11}  {row['peak_gib'] or math.nan:8.2f}  "
            f"{row['chip_gib']:6}  "
            f"{row['compile_seconds']:.0f} ({row['compile_cpu_seconds']:.0f})"
            f"{'' if row['fits'] else '  DOES NOT FIT'}",
            flush=True,
        )
    if JSON.value:
        records.add(JSON.value, record_of(rows))
    sys.exit(0 if all(row["fits"] for row in rows) else 1)


if __name__ == "__main__":
    app.run(main)
