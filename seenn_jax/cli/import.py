"""Make a run of a checkpoint of other code: python -m seenn_jax import FILE --workdir=runs/NAME."""

from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from seenn_jax.cli.flags import IMPORT
from seenn_jax.cli.main import main as run_program
from seenn_jax.cli.start import command
from seenn_jax.errors import UserError
from seenn_jax.interop.official import make_run


def main() -> None:
    """The program."""
    run_program(_import, IMPORT, arguments=True)


def _import(files: list[str]) -> None:
    """Import the one file that is given."""
    if len(files) != 1:
        raise UserError(
            f"{len(files)} files are given: give the path of one checkpoint, and the `workdir` of "
            "the run that is made of it"
        )
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in IMPORT}
    for name in ("timesteps", "levels"):
        if values[name] is not None and values[name] < 1:
            raise UserError(
                f"`{name}` is {values[name]}: it must be at least 1; give a larger number"
            )
    workdir = Path(values.pop("workdir") or Path("runs", Path(files[0]).stem or "imported"))
    source = make_run(files[0], workdir, **values)
    console = Console()
    console.print(
        f"{files[0]} is {source.about}, which fires at v {source.fires} its threshold. Run: "
        f"{workdir}\nIt has learnt all training images, so that no threshold can be chosen on any: "
        f"fix one beforehand.\nNext: {command('evaluate')} --workdir={workdir} --threshold=0.9",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
