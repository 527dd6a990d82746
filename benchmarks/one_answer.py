"""Whether an answer depends on the program that gives it, or on the size of its batch.

    python benchmarks/one_answer.py --workdir=runs/cifar10_taught --threshold=0.9

Runs the test split of a trained run by several programs, in every dtype, and counts the answers and
the exit times that are not those of all ticks at once at 256 images.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging

from seenn_jax import engine, exits, provenance, run
from seenn_jax.data import normalize
from seenn_jax.models import inference_network
from seenn_jax.training.checkpoints import load_model

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run.", required=True)
THRESHOLD = flags.DEFINE_float("threshold", 0.9, "Of confidence, at which samples exit.")
DTYPES = flags.DEFINE_list("dtypes", ["bfloat16", "float32", "int8"], "Dtypes of inference.")
PROGRAMS = flags.DEFINE_list(
    "programs",
    ["full:256", "full:500", "masked:256", "masked:500", "slots:256", "slots:500"],
    "METHOD:BATCH; the first is what the others are compared with.",
)
JSON = flags.DEFINE_string("json", None, "Write all results to this file.")


def exits_of(dtype: str, images: np.ndarray):
    """Yield (program, what the exits leave) of the run in one dtype."""
    config, facts = run.load(Path(WORKDIR.value))
    if dtype != "int8":
        config.model.dtype = dtype
    model, _ = load_model(Path(WORKDIR.value), config, facts)
    network = inference_network(model, facts.image_shape, config.timesteps, int8=dtype == "int8")
    mean, std = facts.normalization
    transform = functools.partial(normalize, mean=mean, std=std, dtype=config.model.dtype)
    criterion = engine.above(exits.confidence, float(np.float32(THRESHOLD.value)))

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def call(method, batch, params, images):
        return engine.run_network(
            method, network, params, images, criterion, config.timesteps, batch, transform=transform
        )

    for program in PROGRAMS.value:
        method, batch = program.split(":")
        yield program, jax.device_get(call(method, int(batch), network.params, images))


def main(_) -> None:
    """Measure and print, a line for each program as it comes."""
    logging.set_verbosity(logging.ERROR)
    config, _ = run.load(Path(WORKDIR.value))
    images, labels = run.load_data(config).test
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
        result = {
            "workdir": WORKDIR.value,
            "threshold": THRESHOLD.value,
            "rows": rows,
            "revision": provenance.revision(),
            "versions": provenance.versions(),
            "device": provenance.device(),
        }
        Path(JSON.value).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
