"""Write a network for other software: python -m seenn_jax export --onnx=FILE."""

from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from seenn_jax.cli.flags import EXPORT
from seenn_jax.cli.main import main as run_program
from seenn_jax.cli.named import check_named, loaded
from seenn_jax.errors import UserError
from seenn_jax.interop import onnx, stablehlo, state_dict
from seenn_jax.paths import check_new
from seenn_jax.run.inference import Predictor

TICKS = {"onnx": onnx.write_tick, "stablehlo": stablehlo.write_tick}
KINDS = ("safetensors", *TICKS)


def main() -> None:
    """The program."""
    run_program(_export, EXPORT)


def _export() -> None:
    """Write what the flags name."""
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in EXPORT}
    _check(values)
    run, console = loaded(values), Console()
    for kind in KINDS:
        if values[kind]:
            said = _write(kind, Path(values[kind]), run, values["slots"])
            console.print(f"{values[kind]}: {said}", soft_wrap=True, markup=False, highlight=False)


def _write(kind: str, path: Path, run: Predictor, slots: int | None) -> str:
    """Write one file, and say what it is."""
    if kind in TICKS:
        slots = 1 if slots is None else slots
        TICKS[kind](path, run, slots)
        return f"one tick of {slots} image(s), whose logits are summed over {run.timesteps} ticks"
    source = state_dict.write(path, run)
    return f"the state dict of {source.about}, which fires at v {source.fires} its threshold"


def _check(values: dict[str, Any]) -> None:
    """Raise a UserError for what takes no network to be seen wrong."""
    check_named(values)
    asked = [kind for kind in KINDS if values[kind]]
    if not asked:
        named = ", ".join(f"`{kind}`" for kind in KINDS)
        raise UserError(f"there is nothing to write: give the path of a new file as {named}")
    for kind in asked:
        check_new(kind, Path(values[kind]))
    if values["slots"] is not None and not values["onnx"] and not values["stablehlo"]:
        raise UserError(
            f"`slots`={values['slots']} goes with `onnx` and `stablehlo`: give one of these too, "
            "or leave it out"
        )
