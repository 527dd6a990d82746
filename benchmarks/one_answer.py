"""Whether an answer depends on the program that gives it, or on the size of its batch.

    python benchmarks/one_answer.py --workdir=runs/cifar10_taught --threshold=0.9

Runs the test split of a trained run by several programs, in every dtype, and counts the answers and
the exit times that are not those of all ticks at once at 256 images.
"""

import functools
from pathlib import Path

import jax
import numpy as np
import records
from absl import app, flags, logging

from seenn_jax import engine, exits, provenance
from seenn_jax.config import default_config
from seenn_jax.run import build, folder
from seenn_jax.run.inference import load

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run.", required=True)
THRESHOLD = flags.DEFINE_float("threshold", 0.9, "Of confidence, at which samples exit.")
DTYPES = flags.DEFINE_list("dtypes", ["bfloat16", "float32", "int8"], "Dtypes of inference.")
PROGRAMS = flags.DEFINE_list(
    "programs",
    ["full:256", "full:500", "masked:256", "masked:500", "slots:256", "slots:500"],
    "METHOD:BATCH; the first is what the others are compared with.",
)
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")


def exits_of(dtype: str, images: np.ndarray):
    """Yield (program, what the exits leave) of the run in one dtype."""
    run = load(WORKDIR.value, precision=dtype)
    criterion = exits.above(exits.confidence, float(np.float32(THRESHOLD.value)))

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def call(method, batch, params, images):
        return engine.run_network(
            method,
            run.network,
            params,
            images,
            criterion,
            run.timesteps,
            batch,
            transform=run.transform,
        )

    for program in PROGRAMS.value:
        method, batch = program.split(":")
        yield program, jax.device_get(call(method, int(batch), run.network.params, images))


def main(_) -> None:
    """Measure and print, a line for each program as it comes."""
    logging.set_verbosity(logging.ERROR)
    config, _ = folder.load(Path(WORKDIR.value))
    images, labels = build.dataset(config).test
    print(f"{WORKDIR.value}, {len(labels):,} images, {provenance.device()}", flush=True)
    rows = []
    for dtype in DTYPES.value:
        first = None
        for program, found in exits_of(dtype, images):
            answers = found.logits.argmax(-1)
            first = first or (answers, found.timesteps)
            row = {
                "dtype": dtype,
                "program": program,
                "accuracy": float(np.mean(answers == labels)),
                "average_timesteps": float(np.mean(found.timesteps)),
                "answers_that_differ": int(np.sum(answers != first[0])),
                "exit_times_that_differ": int(np.sum(found.timesteps != first[1])),
            }
            rows.append(row)
            print("  ".join(f"{value}" for value in row.values()), flush=True)
    if JSON.value:
        figures = {"threshold": THRESHOLD.value, "samples": len(labels), "rows": rows}
        model, changes = config.model, records.differing(config, default_config())
        what = f"One answer of {model.name}, width {model.width}, trained, {config.data.name}"
        record = records.record(what, figures, config=changes, seed=config.seed)
        records.add(JSON.value, record)


if __name__ == "__main__":
    app.run(main)
