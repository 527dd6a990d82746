"""Evaluate a trained network with early exit: python evaluate.py --exit=confidence."""

import json
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console

from seenn_jax.cli.console import patient_console
from seenn_jax.cli.flags import EVALUATE, choice_of
from seenn_jax.cli.main import main as run_program
from seenn_jax.cli.named import RUNS, check_named
from seenn_jax.cli.start import command
from seenn_jax.cli.weights import export
from seenn_jax.errors import UserError, check_choice
from seenn_jax.evaluation.conversion import conversion_report
from seenn_jax.evaluation.details import Details
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.interop import nir
from seenn_jax.paths import check_new, put
from seenn_jax.report.console import print_conversions, print_result
from seenn_jax.report.files import write_report
from seenn_jax.run import folder, weights
from seenn_jax.run.inference import Predictor, load
from seenn_jax.run.tensors import DTYPES
from seenn_jax.run.trained import Trained

# Flags that are arguments of `evaluate` as they are.
PASSED_ON = (
    *("temperature", "method", "split", "slots", "precision", "timesteps", "ann", "percentile"),
    *("energy", "data_dir", "data_name", "checkpoint"),
)

OF_LOADING = ("percentile", "data_dir", "data_name", "checkpoint")


def main() -> None:
    """The program."""
    run_program(_evaluate, EVALUATE)


def _evaluate() -> None:
    """Evaluate the run that the flags name, print the result and write its report."""
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in EVALUATE}
    choice = choice_of(flags.FLAGS)
    _check(values)
    sources = _sources(values)
    source, copy = sources[0], Path(values["json"]) if values["json"] else None
    console = patient_console()
    conversions = []
    if values["conversion_report"]:
        conversions = [_conversion(each, values, console) for each in sources]
        print_conversions(conversions, console)
        if len(sources) > 1:
            _copy(conversions, copy)
            return
    if values["nir"]:
        of_data = {name: values[name] for name in OF_LOADING}
        _export_nir(Path(values["nir"]), load(source, **of_data), values["nir_lossy"], console)
    console.print(f"Evaluating {_place(source)}.", soft_wrap=True)
    details: list[Details] = []
    asked = {name: values[name] for name in PASSED_ON}
    asked |= {"exit": values["exit"] or "confidence", "choice": choice}
    result = evaluate(source, **asked, details=details.append)
    if jax.process_index() > 0:  # the first process writes
        return
    if conversions:
        result["conversion"] = conversions[0]
    print_result(result, console)
    name = "ann" if values["ann"] else result["exit"]
    report = write_report(result, _folder(source) / name, *details)
    console.print(f"Report: {report}", soft_wrap=True)
    looked_at = values["ann"] or values["checkpoint"] is not None or result["split"] != "test"
    if isinstance(source, Path) and not looked_at:
        folder.keep_exit(source, result)
    _copy(result, copy)
    if values["export_weights"]:
        path, dtype = Path(values["export_weights"]), values["weights_dtype"] or "float32"
        export(path, source, dtype, result, asked, console)
    if not values["ann"] and not weights.opened(source).facts.frames:
        which = f"--weights={values['weights']}" if values["weights"] else f"--workdir={source}"
        console.print(f"Next: {command('predict')} {which} FILE_OR_FOLDER", soft_wrap=True)


def _export_nir(path: Path, run: Predictor, lossy: bool, console: Console) -> None:
    nir.export(path, run, lossy=lossy)
    console.print(f"Network: {path}", soft_wrap=True)
    loss = ""
    if run.kind == "converted":
        loss = "begin at half their threshold and are reset by its subtraction"
    elif run.config.model.reset == "soft":
        loss = "are reset by the subtraction of their threshold"
    if loss:
        console.print(
            f"Its neurons {loss}, which is in their metadata alone: a reader that does not look "
            "there runs another network.",
            soft_wrap=True,
        )


def _check(values: dict) -> None:
    """Raise a UserError for what takes no network to be seen wrong."""
    check_named(values)
    for name in ("exit", "timesteps", "nir", "export_weights"):
        value = values[name]
        if values["ann"] and value and value != "full":
            raise UserError(
                f"`{name}`={value} is for a spiking network, and `ann` is for the ordinary one "
                "that it was converted from, at one timestep: leave one of them out"
            )
    for name in ("nir", "export_weights"):
        if values[name] and values["multihost"]:
            raise UserError(
                f"`{name}`={values[name]} is written by one process: leave `multihost` out"
            )
    if values["weights_dtype"]:
        check_choice("`weights_dtype`", values["weights_dtype"], DTYPES)
        if not values["export_weights"]:
            raise UserError(
                f"`weights_dtype`={values['weights_dtype']} goes with `export_weights`: give that "
                "too, or leave it out"
            )
    if values["nir_lossy"] and not values["nir"]:
        raise UserError("`nir_lossy` goes with `nir`: give that too, or leave it out")
    if values["json"]:
        check_new("json", Path(values["json"]))
    if values["nir"]:
        nir.check_path(Path(values["nir"]))
    if values["export_weights"]:
        weights.check_path(Path(values["export_weights"]))


def _sources(values: dict) -> list[Path | Trained]:
    """The runs, or the weights, that the flags name."""
    if values["weights"]:
        return [weights.read(values["weights"])]
    named = values["workdir"] or str(folder.newest(RUNS))
    workdirs: list[Path | Trained] = [Path(name) for name in named.split(",")]
    if len(workdirs) > 1 and not values["conversion_report"]:
        raise UserError(
            f"`workdir`={named} names {len(workdirs)} runs, and one is evaluated at a "
            "time: give one, or `conversion_report` too"
        )
    return workdirs


def _place(source: Path | Trained) -> Path:
    return source if isinstance(source, Path) else source.place


def _folder(source: Path | Trained) -> Path:
    """Where reports are written."""
    of = source if isinstance(source, Path) else Path("runs/weights") / source.place.stem
    return of / "evaluation"


def _copy(found: dict | list, path: Path | None) -> None:
    if path and jax.process_index() == 0:
        put(path, (json.dumps(found, indent=2) + "\n").encode())


def _conversion(source: Path | Trained, values: dict, console: Console) -> dict:
    console.print(f"Comparing {_place(source)} with what it is converted to.", soft_wrap=True)
    named = ("split", "precision", *OF_LOADING)
    asked = {name: values[name] for name in named}
    report = conversion_report(source, **asked)
    if jax.process_index() == 0:
        path = _folder(source) / "conversion.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, (json.dumps(report, indent=2) + "\n").encode())
    return report
