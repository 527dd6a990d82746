"""Classify image files with a trained network: python -m seenn_jax predict FILE_OR_FOLDER ..."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from rich import box
from rich.console import Console
from rich.table import Table

from seenn_jax.cli.console import patient_console
from seenn_jax.cli.flags import PREDICT, choice_of
from seenn_jax.cli.main import main as run_program
from seenn_jax.cli.named import check_data_used, check_named, exit_words, loaded
from seenn_jax.engine.common import check_at_least_one
from seenn_jax.errors import UserError
from seenn_jax.paths import check_new, put
from seenn_jax.report.words import plural
from seenn_jax.run.prediction import Predictions, joined

SHOWN = 50  # rows of the table
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}  # that JSON does not escape


def main() -> None:
    """The program."""
    run_program(_predict, PREDICT, arguments=True)


def _predict(paths: list[str]) -> None:
    """Classify the images of these paths, and say what they show."""
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in PREDICT}
    choice = choice_of(flags.FLAGS)
    _check(paths, values)
    to_stdout = values["json"] == "-"
    run = loaded(values)
    run.batch = values["slots"] or run.batch
    images = run.opened(paths)
    exit, chosen, temperatures = run.exit_of(values["exit"], choice)
    check_data_used(run, values)
    parts = run.stream(images, exit, chosen, temperatures)
    started = time.perf_counter()
    found = joined(list(_printed(parts) if to_stdout else parts))
    seconds = time.perf_counter() - started
    console = patient_console(highlight=False, stderr=to_stdout)
    if not to_stdout:
        _print_table(found, console)
    console.print(_summary(found, len(images), seconds), soft_wrap=True)
    console.print(exit_words(exit, chosen, run.timesteps), soft_wrap=True)
    if values["json"] and not to_stdout:
        content = "".join(f"{line}\n" for line in lines(found))
        # JSON writes what is no text in the name of a file as Python does: \udcff.
        put(Path(values["json"]), content.encode(errors="backslashreplace"))
        console.print(f"Lines of JSON: {values['json']}", soft_wrap=True)


def _check(paths: list[str], values: dict) -> None:
    """Raise a UserError for what takes no network to be seen wrong."""
    if not paths:
        raise UserError("there is nothing to predict: give image files, or folders of them")
    if values["json"] and values["json"] != "-":
        check_new("json", Path(values["json"]))
    check_named(values)
    if values["slots"] is not None:
        check_at_least_one("slots", values["slots"])


def lines(found: Predictions) -> Iterator[str]:
    """A line of JSON for each image."""
    for file, name, number, confidence, timesteps in zip(
        found.files, found.names, found.classes, found.confidence, found.timesteps, strict=True
    ):
        yield json.dumps(
            {
                "file": file,
                "class": name,
                "class_number": int(number),
                "confidence": round(float(confidence), 6),
                "timesteps": int(timesteps),
            },
            ensure_ascii=False,
        ).translate(_CONTROLS)


def _printed(parts: Iterator[Predictions]) -> Iterator[Predictions]:
    """The same predictions, each of which has been printed."""
    for part in parts:
        for line in lines(part):
            print(line)
        sys.stdout.flush()
        yield part


def _print_table(found: Predictions, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("file", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("confidence", justify="right")
    table.add_column("timesteps", justify="right")
    rows = zip(found.files, found.names, found.confidence, found.timesteps, strict=True)
    for _, (file, name, confidence, timesteps) in zip(range(SHOWN), rows, strict=False):
        table.add_row(file, name, f"{100 * confidence:.1f} %", str(timesteps))
    console.print(table)
    if len(found.files) > SHOWN:
        more = len(found.files) - SHOWN
        console.print(f"... and {more:,} more; --json=PATH writes a line for each.")


def _summary(found: Predictions, asked: int, seconds: float) -> str:
    count = len(found.files)
    unread = f", {asked - count:,} could not be read" if asked > count else ""
    return (
        f"{plural(count, 'image')}{unread}; {found.timesteps.mean():.3f} timesteps on average; "
        f"{seconds:.1f} s, {count / seconds:,.0f} images/s, reading included"
    )
