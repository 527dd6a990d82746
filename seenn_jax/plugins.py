"""Plugins: a user's own modules that add rows to the tables, named in `config.plugins`.

# my_neurons.py
from seenn_jax import NEURONS, Neuron

NEURONS["mine"] = Neuron(lambda config: MyNeuron(config.model.tau), spikes=True)
"""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path

from seenn_jax.errors import UserError
from seenn_jax.tables import ALL

_given: dict[str, list[str]] = {}  # what each plugin of this process has added


def load_plugins(
    names: Sequence[str], gave: dict[str, list[str]] | None = None
) -> dict[str, list[str]]:
    """Import plugins, each once in a process.

    Args:
      names: modules that can be imported, from the working directory too, or paths of .py files,
        from the working directory or a folder of PYTHONPATH.
      gave: what they added to the tables when a run was trained, for the message where one is gone.

    Returns:
      what each has added, such as {"my_neurons": ["NEURONS.mine"]}.

    Raises:
      UserError: one is not there, raises, or adds a name that is taken.
    """
    places = {name: _place(name) for name in names}
    for name, place in places.items():
        if place not in _given:
            before = _rows()
            _import(name, place, ", ".join((gave or {}).get(name, [])))
            _given[place] = sorted(_rows() - before)
    return {name: _given[place] for name, place in places.items()}


def _place(name: str) -> str:
    """The whole path of a .py file, which another name may lead to too, or the module's name."""
    if not name.endswith(".py"):
        return name
    for path in (Path(folder, name) for folder in (".", *sys.path)):
        if path.is_file():
            return str(path.resolve())
    return name


def _rows() -> set[str]:
    return {f"{table}.{row}" for table, rows in ALL.items() for row in rows}


def _import(name: str, place: str, gave: str) -> None:
    before = {title: dict(table) for title, table in ALL.items()}
    try:
        with _from_here():
            if name.endswith(".py"):
                _run_file(Path(place))
            else:
                importlib.import_module(name)
    except Exception as error:
        for title, rows in before.items():  # nothing of a plugin that failed stays
            ALL[title].clear()
            ALL[title].update(rows)
        lost = f" (it gave {gave})" if gave else ""
        if isinstance(error, FileNotFoundError) or (
            isinstance(error, ModuleNotFoundError) and name.startswith(error.name or "-")
        ):
            raise UserError(
                f"`config.plugins` names {name!r}{lost}, and there is no such module: put it into "
                "the working directory or on PYTHONPATH, or give the path of its .py file"
            ) from error
        what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"the plugin {name!r}{lost} of `config.plugins` fails: {what}") from error


def _run_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(path)
    name = f"seenn_jax_plugin_{path.stem}"
    loader = SourceFileLoader(name, str(path))
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    sys.modules[name] = module
    loader.exec_module(module)


@contextlib.contextmanager
def _from_here() -> Iterator[None]:
    """Let modules of the working directory be imported, as they are by `python -m`."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
