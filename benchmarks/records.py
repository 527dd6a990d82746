"""What a benchmark measured, as a record of a file of results/.

A file is {"records": [...]}; see FIELDS. Sweeps, lists of rows that are drawn as curves, lie beside
it in sweeps/NAME.csv, which the record's figures name as "sweep". README.md and docs/results.md are
printed from these files by print_results.py.
"""

import csv
import json
import os
import re
import shlex
import sys
from pathlib import Path

from ml_collections import ConfigDict

from seenn_jax import provenance
from seenn_jax.errors import UserError

RESULTS = Path(__file__).parent.parent / "results"
FIELDS = (
    "what",  # one line
    "command",
    "config",  # what differs from the config file that the command names, or from the defaults
    "seed",  # null where the figures are of several, or of none
    "revision",  # 12 hex digits: what lies in results/ was measured with committed code
    "versions",
    "device",
    "figures",  # numbers, lists of numbers, lists of rows
    "note",
)
# Variables that change what is measured, and so belong to the command.
VARIABLES = ("CUDA_VISIBLE_DEVICES", "XLA_FLAGS", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def record(
    what: str,
    figures: dict,
    *,
    config: dict | None = None,
    seed: int | None = None,
    note: str = "",
) -> dict:
    """A record of what this process has measured."""
    about = {"what": what, "command": command(), "config": config or {}, "seed": seed}
    return {**about, **provenance.origin(), "figures": figures, "note": note}


def command() -> str:
    """How this process was called, but for where it writes its record."""
    arguments = [sys.argv[0]]
    following = iter(sys.argv[1:])
    for argument in following:
        name, equals, _ = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "json":
            if not equals:
                next(following, None)
            continue
        arguments.append(argument)
    set_here = [
        f"{name}={shlex.quote(os.environ[name])}" for name in VARIABLES if name in os.environ
    ]
    return " ".join([*set_here, "python", shlex.join(arguments)])


def differing(config: ConfigDict, base: ConfigDict) -> dict:
    """The settings of `config` that are not those of `base`, as "group.name"."""
    before = _flat(base.to_dict())
    return {
        name: value for name, value in _flat(config.to_dict()).items() if before.get(name) != value
    }


def add(path: str | Path, record: dict, sweep: list[dict] | None = None) -> None:
    """Add a record to a file, which is made where it is not there, and write its sweep beside it.

    Args:
      sweep: rows of equal keys.
    """
    path = Path(path)
    records = load(path) if path.is_file() else []
    if sweep:
        name = f"sweeps/{path.stem}{f'_{len(records)}' if records else ''}.csv"
        record = {**record, "figures": {**record["figures"], "sweep": name}}
        write_rows(path.parent / name, sweep)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text([*records, record]))


def load(path: Path) -> list[dict]:
    """The records of a file.

    Raises:
      UserError: a record has other fields than `FIELDS`.
    """
    found = json.loads(path.read_text())["records"]
    for number, record in enumerate(found, 1):
        for fields, word in (
            (set(FIELDS) - record.keys(), "lacks"),
            (record.keys() - set(FIELDS), "has"),
        ):
            if fields:
                raise UserError(
                    f"{path.name}: record {number} {word} {', '.join(sorted(fields))}: a record "
                    f"has {', '.join(FIELDS)} and nothing else; mend the file"
                )
    return found


def load_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a sweep."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def text(records: list[dict]) -> str:
    """What a file of records holds: JSON with a line for each row and each list of numbers."""
    lines = json.dumps({"records": records}, indent=1)
    for inner in (r"(\[)\n\s*([^\[\]{}]*?)\n\s*(\])", r"(\{)\n\s*([^{}]*?)\n\s*(\})"):
        lines = re.sub(inner, lambda x: x[1] + re.sub(r"\n\s*", " ", x[2]) + x[3], lines)
    return lines + "\n"


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV, with a line of their keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _flat(tree: dict, prefix: str = "") -> dict:
    """As JSON has it: tuples are lists."""
    flat = {}
    for key, value in tree.items():
        name = prefix + key
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat
