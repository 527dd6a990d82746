"""Kills runs, fills disks, damages files, starts things twice, and counts what is lost.

    python benchmarks/soak.py                             # all kinds, hours
    python benchmarks/soak.py --only=kills --tries=2      # a short form of one

A try is lost where a run ends with other bits than an undisturbed one's, lacks a line of its log or
has it twice, where other data than were written are used without a word, or where a program ends
without one. A traceback is more than the one sentence that a user can read. The exit status is 1
where there is either. `--json=results/reliability.json` replaces the record of the kind;
print_results.py prints docs/reliability.md from there.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import records
import tables
from soak_cost import cost
from soak_damage import data, runs, settings
from soak_disk import disk_full
from soak_engine import samples, steps
from soak_kills import kills
from soak_runs import Row
from soak_signals import at_once, sigterm

Kind = Callable[[int | None, Path, random.Random], list[Row] | dict]
KINDS: dict[str, tuple[str, Kind]] = {
    "kills": ("SIGKILL at a random moment, then the same command", kills),
    "sigterm": ("SIGTERM, then the same command", sigterm),
    "at_once": ("Two trainings started in one workdir at once", at_once),
    "disk": ("A disk that is full at ten moments, then has room", disk_full),
    "runs": ("Damaged files of runs", runs),
    "data": ("Damaged files of data", data),
    "settings": ("Wrong settings", settings),
    "samples": ("Samples queued through slots", samples),
    "steps": ("Training steps at constant memory", steps),
    "cost": ("What checksums cost", cost),
}
COLUMNS = ("what", "tries", "lost in silence", "tracebacks", "note")


def main() -> int:
    """Try what is asked for, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=KINDS, help="one kind; default: all")
    parser.add_argument("--tries", type=int, help="of each row, for a short form")
    parser.add_argument("--seed", type=int, default=0, help="of moments and places")
    parser.add_argument("--json", type=Path, help="where to keep what is found")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    if asked.only:
        return int(_of_kind(asked.only, asked) > 0)
    # Each in a process of its own: damage forks, which one that has computed must not.
    again = [sys.executable, *sys.argv]
    return int(any([subprocess.run([*again, f"--only={name}"]).returncode for name in KINDS]))


def _of_kind(name: str, asked: argparse.Namespace) -> int:
    """Do one kind; how many tries went wrong."""
    what, kind = KINDS[name]
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        # Programs are compiled once, and read by all that are started again.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/programs"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        found = kind(asked.tries, Path(folder, "scratch"), random.Random(asked.seed))
    figures, bad = found, 0
    if isinstance(found, list):
        figures = {"rows": [row._asdict() for row in found]}
        bad = sum(row.lost + row.tracebacks for row in found)
        print(tables.table(COLUMNS, found), flush=True)
    else:
        print(figures, flush=True)
    if asked.json and figures:
        _keep(asked.json, name, what, figures, asked)
    return bad


def _keep(path: Path, name: str, what: str, figures: dict, asked: argparse.Namespace) -> None:
    """Put a record where that of the same kind is, or at the end."""
    short = [f"--tries={asked.tries}"] if asked.tries else []
    seed = [f"--seed={asked.seed}"] if asked.seed else []
    sys.argv = ["benchmarks/soak.py", f"--only={name}", *short, *seed]
    record = records.record(what, figures, seed=asked.seed)
    kept = records.load(path) if path.is_file() else []
    kept = [each for each in kept if each["what"] != what] + [record]
    order = [of for of, _ in KINDS.values()]
    path.write_text(records.text(sorted(kept, key=lambda each: order.index(each["what"]))))


if __name__ == "__main__":
    sys.exit(main())
