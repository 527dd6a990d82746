"""Evaluate a trained network with early exit: python evaluate.py --exit=confidence."""

import json
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console

from seenn_jax.cli.flags import EVALUATE, choice_of
from seenn_jax.cli.main import main as run_program
from seenn_jax.errors import UserError
from seenn_jax.evaluation.conversion import conversion_report
from seenn_jax.evaluation.details import Details
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.interop import nir
from seenn_jax.paths import put
from seenn_jax.report import print_conversions, print_result, write_report
from seenn_jax.run import folder
from seenn_jax.run.inference import load


def main() -> None:
    """The program."""
    run_program(_evaluate, EVALUATE)


def _evaluate() -> None:
    """Evaluate the run that the flags name, print the result and write its report."""
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in EVALUATE}
    choice = choice_of(flags.FLAGS)
    _check(values)
    workdirs = _workdirs(values)
    workdir, copy = workdirs[0], _copy_path(values)
    # Paths may hold what rich takes for markup.
    console = Console(markup=False, quiet=jax.process_index() > 0)
    conversions = []
    if values["conversion_report"]:
        conversions = [_conversion(each, values, console) for each in workdirs]
        print_conversions(conversions, console)
        if len(workdirs) > 1:
            _copy(conversions, copy)
            return
    if values["nir"]:
        nir.check_path(Path(values["nir"]))
        nir.export(Path(values["nir"]), load(workdir, percentile=values["percentile"]))
        console.print(f"Network: {values['nir']}", soft_wrap=True)
    console.print(f"Evaluating {workdir}.", soft_wrap=True)
    details: list[Details] = []
    asked = ("temperature", "method", "split", "slots", "precision", "timesteps", "ann")
    result = evaluate(
        workdir,
        exit=values["exit"] or "confidence",
        choice=choice,
        percentile=values["percentile"],
        energy=values["energy"],
        details=details.append,
        **{name: values[name] for name in asked},
    )
    if jax.process_index() > 0:  # the first process writes
        return
    if conversions:
        result["conversion"] = conversions[0]
    print_result(result, console)
    name = "ann" if values["ann"] else result["exit"]
    report = write_report(result, workdir / "evaluation" / name, *details)
    console.print(f"Report: {report}", soft_wrap=True)
    if not values["ann"]:
        folder.keep_exit(workdir, result)
    _copy(result, copy)


def _check(values: dict) -> None:
    """Raise a UserError for flags that contradict each other or would be ignored."""
    if values["ann"]:
        for name in ("exit", "timesteps", "nir"):
            value = values[name]
            if value and value != "full":
                raise UserError(
                    f"`{name}`={value} is for a spiking network, and `ann` is for the ordinary one "
                    "that it was converted from, at one timestep: leave one of them out"
                )
    if values["nir"] and values["multihost"]:
        raise UserError(f"`nir`={values['nir']} is written by one process: leave `multihost` out")


def _workdirs(values: dict) -> list[Path]:
    named = values["workdir"] or str(folder.newest(Path("runs")))
    workdirs = [Path(name) for name in named.split(",")]
    if len(workdirs) > 1 and not values["conversion_report"]:
        raise UserError(
            f"`workdir`={named} names {len(workdirs)} runs, and one is evaluated at a "
            "time: give one, or `conversion_report` too"
        )
    return workdirs


def _copy_path(values: dict) -> Path | None:
    copy = Path(values["json"]) if values["json"] else None
    if copy and copy.exists():
        raise UserError(f"`json`={copy} exists already: give the name of a new file")
    if copy and not copy.parent.is_dir():
        raise UserError(f"`json`={copy}: there is no folder {copy.parent}; make it, or use another")
    return copy


def _copy(found: dict | list, path: Path | None) -> None:
    if path and jax.process_index() == 0:
        put(path, (json.dumps(found, indent=2) + "\n").encode())


def _conversion(workdir: Path, values: dict, console: Console) -> dict:
    console.print(f"Comparing {workdir} with what it is converted to.", soft_wrap=True)
    asked = {name: values[name] for name in ("split", "precision", "percentile")}
    report = conversion_report(workdir, **asked)
    if jax.process_index() == 0:
        path = workdir / "evaluation" / "conversion.json"
        path.parent.mkdir(exist_ok=True)
        put(path, (json.dumps(report, indent=2) + "\n").encode())
    return report
