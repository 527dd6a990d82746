"""Evaluate a trained network with early exit: python evaluate.py --exit=confidence."""

import json
from pathlib import Path

from absl import flags
from rich.console import Console

from seenn_jax import cli, run
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluator import EXITS, SPLITS, evaluate
from seenn_jax.evaluation.report import print_result, write_report

EXIT = flags.DEFINE_string("exit", "confidence", f"When a sample exits: {', '.join(EXITS)}.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run. Default: the newest in runs/.")
THRESHOLD = flags.DEFINE_float(
    "threshold", None, "Exit above this score, in [0, 1]. Default: chosen on the validation split."
)
SPLIT = flags.DEFINE_string("split", "test", f"What is reported: {', '.join(SPLITS)}.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images in one forward pass.")
JSON = flags.DEFINE_string("json", None, "Write the result to this file too.")


def main() -> None:
    """Evaluate the run that the flags name, print the result and write its report."""
    workdir = Path(WORKDIR.value) if WORKDIR.value else run.newest(Path("runs"))
    console = Console()
    console.print(f"Evaluating {workdir}.")
    if JSON.value and Path(JSON.value).exists():
        raise UserError(f"--json={JSON.value} exists already: give the name of a new file")
    result = evaluate(
        workdir,
        exit=EXIT.value,
        threshold=THRESHOLD.value,
        split=SPLIT.value,
        batch_size=BATCH_SIZE.value,
    )
    print_result(result, console)
    report = write_report(result, workdir / "evaluation" / EXIT.value)
    console.print(f"Report: {report}", soft_wrap=True)
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    cli.main(main)
