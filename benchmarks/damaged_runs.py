"""What becomes of damage to the files of a run: flips, cuts, zeros, deletions, one at a time.

    python benchmarks/damaged_runs.py --tries=4 --records=500

Trains a small run on digits, damages a copy of each of its files, and reads it as evaluation and as
a training that goes on do. An outcome is the right result, one sentence, a change that nobody is
told of, or another error than a UserError; the last two must not be, and the exit status is 1 then.
"""

import argparse
import collections
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from damages import DAMAGES, damage
from flax import nnx
from rich.console import Console

from seenn_jax.cli.overrides import load_config
from seenn_jax.errors import UserError
from seenn_jax.run import checkpoints, folder, stored
from seenn_jax.training import train

RIGHT, SENTENCE, SILENT, ERROR = "right result", "one sentence", "silent change", "other error"


def same(a: Any, b: Any) -> bool:
    """Whether trees of arrays and plain values have the same bits."""
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(leaves) == len(others) and all(map(np.array_equal, leaves, others))


def evaluated(run: Path) -> Any:
    """What an evaluation loads."""
    model, step = checkpoints.load_model(run, *folder.load(run))
    return step, nnx.state(model)


def resumed(run: Path) -> Any:
    """What a training that goes on says, and starts from."""
    said = checkpoints.set_aside_damaged(run)
    there = checkpoints.steps(run)
    return said, there and (there[-1], stored.arrays(run, there[-1]))


class Said(logging.Handler):
    """What is logged as a warning."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        logging.getLogger("seenn_jax").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        self.lines.append(record.getMessage())


def outcome(read: Callable[[], Any], right: Callable[[Any], str]) -> str:
    """How a try ends; `right` judges what was read."""
    try:
        return right(read())
    except UserError as error:
        return SENTENCE if "\n" not in str(error) else ERROR
    except Exception as error:
        print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return ERROR


def of_checkpoints(
    run: Path, scratch: Path, tries: int, rng: random.Random, counts: collections.Counter
) -> None:
    """Damage every file of every checkpoint, so often in each way."""
    wanted = evaluated(run)
    whole = {step: stored.arrays(run, step) for step in checkpoints.steps(run)}

    def judged_evaluation(found):
        return RIGHT if same(found, wanted) else SILENT

    def judged_resuming(found):
        said, latest = found
        if latest and not (latest[0] in whole and same(latest[1], whole[latest[0]])):
            return SILENT
        if said:
            return SENTENCE
        return RIGHT if latest and latest[0] == max(whole) else SILENT

    files = sorted(p.relative_to(run) for p in (run / "checkpoints").rglob("*") if p.is_file())
    for kind in DAMAGES:
        for file in files * (1 if kind == "gone" else tries):
            copy = Path(shutil.copytree(run, scratch / "copy"))
            damage(copy / file, kind, rng)
            found = outcome(lambda copy=copy: evaluated(copy), judged_evaluation)
            counts["checkpoint, evaluated", kind, found] += 1
            resumes = outcome(lambda copy=copy: resumed(copy), judged_resuming)
            counts["checkpoint, trained on", kind, resumes] += 1
            if {found, resumes} & {SILENT, ERROR}:
                print(f"{kind} of {file}: {found}, {resumes}", file=sys.stderr)
            shutil.rmtree(copy)


def of_records(
    run: Path, scratch: Path, tries: int, rng: random.Random, counts: collections.Counter
) -> None:
    """Damage the records of a run, one of them at a time."""
    said = Said()
    readers = {
        "run.json": lambda run: (*folder.load(run), folder.origin_of(run)),
        "metrics.jsonl": folder.metrics,
        "exit.json": folder.kept_exit,
    }
    copy = Path(shutil.copytree(run, scratch / "copy"))
    for number in range(tries):
        file = ("run.json", "metrics.jsonl", "run.json", "metrics.jsonl", "exit.json")[number % 5]
        read, wanted = readers[file], str(readers[file](run))
        kind = ("flip", "cut", "zeros", "flip", "flip")[number // 5 % 5]
        shutil.copy(run / file, copy / file)
        damage(copy / file, kind, rng)
        said.lines.clear()

        def judged(found, wanted=wanted):
            return RIGHT if str(found) == wanted else SENTENCE if said.lines else SILENT

        found = outcome(lambda read=read: read(copy), judged)
        counts[file, kind, found] += 1
        if found in (SILENT, ERROR):
            kept = shutil.copy(copy / file, scratch.parent / f"damaged-{number}-{file}")
            print(f"{kind} of {file}: {found}, kept as {kept}", file=sys.stderr)


def damaged(tries: int, records: int, seed: int, scratch: Path) -> collections.Counter:
    """{(what, damage, outcome): how often}.

    Args:
      tries: of each kind of damage, for each file of a checkpoint.
      records: damaged run.json, metrics.jsonl and exit.json.
      seed: of the places that are damaged.
    """
    counts: collections.Counter = collections.Counter()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells of all that it does
    logging.getLogger("seenn_jax").propagate = False
    run = scratch / "run"
    config = load_config("digits")
    config.update(epochs=4, validate_every=1, timesteps=2)
    config.model.width = 4
    train(config, run, Console(quiet=True))
    about = {"exit": "full", "threshold": 0.5, "threshold_rule": "as given"}
    folder.keep_exit(run, about | {"temperatures": None, "timesteps": 2})
    of_checkpoints(run, scratch, tries, random.Random(seed), counts)
    of_records(run, scratch, records, random.Random(seed), counts)
    return counts


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tries", type=int, default=1, help="of each damage, for each file")
    parser.add_argument("--records", type=int, default=500, help="damaged records")
    parser.add_argument("--seed", type=int, default=0, help="of the places that are damaged")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        counts = damaged(asked.tries, asked.records, asked.seed, Path(scratch))
    columns = (RIGHT, SENTENCE, SILENT, ERROR)
    print(f"| what | damage | tries | {' | '.join(columns)} |\n|---|---|{'---:|' * 5}")
    for what, kind in dict.fromkeys(key[:2] for key in counts):
        each = [counts[what, kind, column] for column in columns]
        print(f"| {what} | {kind} | {sum(each)} | {' | '.join(map(str, each))} |")
    bad = sum(n for (_, _, found), n in counts.items() if found in (SILENT, ERROR))
    print(f"{sum(counts.values())} tries, {bad} of them lost in silence or by another error")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
