"""Evaluate a trained network with early exit: python evaluate.py --exit=confidence."""

import json
from pathlib import Path

import jax
from absl import flags
from rich.console import Console

from seenn_jax import cli, run
from seenn_jax.conversion import PERCENTILE
from seenn_jax.engine import METHODS
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluator import (
    BATCH,
    DTYPES,
    EXITS,
    SPLITS,
    TOLERANCE,
    Choice,
    conversion_report,
    evaluate,
    export_nir,
)
from seenn_jax.evaluation.report import print_conversions, print_result, write_report

EXIT = flags.DEFINE_string("exit", "confidence", f"When a sample exits: {', '.join(EXITS)}.")
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run. Default: the newest in runs/. Several, with commas, for one "
    "--conversion_report.",
)
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
TIMESTEPS = flags.DEFINE_integer("timesteps", None, "T, at least 1. Default: the run's.")
ANN = flags.DEFINE_bool(
    "ann", False, "Evaluate the ordinary network of a run, at one timestep, without converting it."
)
PERCENTILE_FLAG = flags.DEFINE_float(
    "percentile",
    None,
    "Where the thresholds of a converted ReLU network are put among its activations on training "
    f"images; 100 for their maximum. Default: {PERCENTILE}.",
)
CONVERSION_REPORT = flags.DEFINE_bool(
    "conversion_report",
    False,
    "Tell how near the converted network comes to the ordinary one, layer by layer; in "
    "WORKDIR/evaluation/conversion.json too.",
)
ENERGY = flags.DEFINE_bool(
    "energy",
    False,
    "Count synaptic operations, multiply-accumulates, firing rates and the energy of arithmetic.",
)
NIR = flags.DEFINE_string(
    "nir",
    None,
    "Write the spiking network to this file, in the Neural Intermediate Representation.",
)
JSON = flags.DEFINE_string("json", None, "Write the result to this file too.")
MULTIHOST = flags.DEFINE_bool("multihost", False, cli.MULTIHOST)
PATIENCE = flags.DEFINE_integer("patience", cli.PATIENCE, cli.PATIENCE_HELP)


def main() -> None:
    """Evaluate the run that the flags name, print the result and write its report."""
    if MULTIHOST.value:
        cli.join_processes(PATIENCE.value)
    workdirs = [Path(name) for name in (WORKDIR.value or str(run.newest(Path("runs")))).split(",")]
    if len(workdirs) > 1 and not CONVERSION_REPORT.value:
        raise UserError(
            f"--workdir={WORKDIR.value} names {len(workdirs)} runs, and one is evaluated at a "
            "time: give one, or --conversion_report too"
        )
    workdir = workdirs[0]
    copy = Path(JSON.value) if JSON.value else None
    if copy and copy.exists():
        raise UserError(f"--json={copy} exists already: give the name of a new file")
    if copy and not copy.parent.is_dir():
        raise UserError(f"--json={copy}: there is no folder {copy.parent}; make it, or use another")
    # Paths may hold what rich takes for markup.
    console = Console(markup=False, quiet=jax.process_index() > 0)
    conversions = []
    if CONVERSION_REPORT.value:
        for each in workdirs:
            console.print(f"Comparing {each} with what it is converted to.", soft_wrap=True)
            conversions.append(_conversion(each))
        print_conversions(conversions, console)
        if len(workdirs) > 1:
            _copy(conversions, copy)
            return
    if NIR.value:
        if ANN.value:
            raise UserError(
                f"--nir={NIR.value} writes the spiking network, and --ann is for the one that it "
                "was converted from: leave one of them out"
            )
        if MULTIHOST.value:
            raise UserError(f"--nir={NIR.value} is written by one process: leave --multihost out")
        export_nir(workdir, Path(NIR.value), percentile=PERCENTILE_FLAG.value)
        console.print(f"Network: {NIR.value}", soft_wrap=True)
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
        timesteps=TIMESTEPS.value,
        ann=ANN.value,
        percentile=PERCENTILE_FLAG.value,
        energy=ENERGY.value,
    )
    if jax.process_index() > 0:  # the first process writes
        return
    if conversions:
        result["conversion"] = conversions[0]
    print_result(result, console)
    report = write_report(result, workdir / "evaluation" / ("ann" if ANN.value else EXIT.value))
    console.print(f"Report: {report}", soft_wrap=True)
    _copy(result, copy)


def _copy(found: dict | list, path: Path | None) -> None:
    if path and jax.process_index() == 0:
        path.write_text(json.dumps(found, indent=2) + "\n")


def _conversion(workdir: Path) -> dict:
    report = conversion_report(
        workdir, split=SPLIT.value, dtype=DTYPE.value, percentile=PERCENTILE_FLAG.value
    )
    if jax.process_index() > 0:
        return report
    path = workdir / "evaluation" / "conversion.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    return report


if __name__ == "__main__":
    cli.main(main)
