"""Evaluate a trained network with early exit: python evaluate.py --exit=confidence."""

import json
from pathlib import Path

from absl import flags
from rich.console import Console

from seenn_jax import cli, run
from seenn_jax.engine import METHODS
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluator import BATCH, DTYPES, EXITS, SPLITS, TOLERANCE, Choice, evaluate
from seenn_jax.evaluation.report import print_result, write_report

EXIT = flags.DEFINE_string("exit", "confidence", f"When a sample exits: {', '.join(EXITS)}.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run. Default: the newest in runs/.")
THRESHOLD = flags.DEFINE_float(
    "threshold",
    None,
    "Exit above this score, in [0, 1]; for patience, after so many equal answers in a row. "
    "Default: chosen on the validation split.",
)
TOLERANCE_FLAG = flags.DEFINE_float(
    "tolerance", TOLERANCE, "Choose for the largest loss of validation accuracy, a fraction of 1."
)
TARGET = flags.DEFINE_float(
    "target_timesteps", None, "Choose for at most this average of timesteps on validation."
)
RISK = flags.DEFINE_float(
    "risk", None, "Choose with a guarantee: the risk is at most this (Learn-then-Test) ..."
)
DELTA = flags.DEFINE_float("delta", 0.1, "... but for this probability.")
LOSS = flags.DEFINE_string(
    "loss",
    "disagreement",
    "What the risk is the mean of: disagreement with all T timesteps, or accuracy lost by exiting.",
)
TEMPERATURE = flags.DEFINE_bool(
    "temperature", False, "Fit a temperature for each timestep on the validation split."
)
METHOD = flags.DEFINE_string("method", "slots", f"How exits are run: {', '.join(METHODS)}.")
SPLIT = flags.DEFINE_string("split", "test", f"What is reported: {', '.join(SPLITS)}.")
DTYPE = flags.DEFINE_string(
    "dtype", None, f"Of inference: {', '.join(DTYPES)}. Default: the run's. int8 rounds weights."
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    f"Slots: images under way at a time. Default: {BATCH}, or the whole split if it is smaller.",
)
JSON = flags.DEFINE_string("json", None, "Write the result to this file too.")


def main() -> None:
    """Evaluate the run that the flags name, print the result and write its report."""
    workdir = Path(WORKDIR.value) if WORKDIR.value else run.newest(Path("runs"))
    copy = Path(JSON.value) if JSON.value else None
    if copy and copy.exists():
        raise UserError(f"--json={copy} exists already: give the name of a new file")
    if copy and not copy.parent.is_dir():
        raise UserError(f"--json={copy}: there is no folder {copy.parent}; make it, or use another")
    console = Console(markup=False)  # paths may hold what rich takes for it
    console.print(f"Evaluating {workdir}.", soft_wrap=True)
    result = evaluate(
        workdir,
        exit=EXIT.value,
        choice=Choice(
            threshold=THRESHOLD.value,
            target_timesteps=TARGET.value,
            risk=RISK.value,
            delta=DELTA.value,
            loss=LOSS.value,
            tolerance=TOLERANCE_FLAG.value,
        ),
        temperature=TEMPERATURE.value,
        method=METHOD.value,
        dtype=DTYPE.value,
        split=SPLIT.value,
        batch_size=BATCH_SIZE.value,
    )
    print_result(result, console)
    report = write_report(result, workdir / "evaluation" / EXIT.value)
    console.print(f"Report: {report}", soft_wrap=True)
    if copy:
        copy.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    cli.main(main)
