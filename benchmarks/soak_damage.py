"""Damaged files and odd settings, as damaged_runs.py, damaged_data.py and odd_flags.py try them."""

import random
from collections import Counter
from pathlib import Path

import damaged_data
import damaged_runs
import odd_flags
from soak_runs import Row

# What has a checksum.
CHECKED = ("decoded cache", "records", "records, skip_corrupt", "images, PNG")
CHECKPOINT_TRIES, RECORDS, FILES, PICTURES, VALUES = 4, 1500, 1000, 3000, 200


def runs(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """A row for checkpoints, evaluated and trained on, and for each record."""
    scratch.mkdir()
    times = 1 if tries else CHECKPOINT_TRIES  # each damage of each file
    counts = damaged_runs.damaged(times, tries or RECORDS, rng.randrange(2**32), scratch)
    found: dict[str, Counter] = {}
    for (what, _, outcome), number in counts.items():
        found.setdefault(what, Counter())[outcome] += number
    return [
        Row(
            f"damaged: {what}",
            outcomes.total(),
            outcomes[damaged_runs.SILENT],
            outcomes[damaged_runs.ERROR],
        )
        for what, outcomes in found.items()
    ]


def data(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """A row for each kind of file of data."""
    scratch.mkdir()
    table = damaged_data.damaged(tries or FILES, tries or PICTURES, scratch, None)
    return [_row(f"damaged: {what}", found, what in CHECKED) for what, found in table.items()]


def settings(tries: int | None, scratch: Path, rng: random.Random) -> list[Row]:
    """A row for each program."""
    table = odd_flags.valued(tries or VALUES, scratch, seed=rng.randrange(2**32))
    return [_row(f"odd values: {what}", found, True) for what, found in table.items()]


def _row(what: str, outcomes: Counter, guarded: bool) -> Row:
    silent = outcomes["silent"]
    lost = (silent if guarded else 0) + outcomes["hang"]
    note = "" if guarded else f"{silent} changed what no checksum guards"
    return Row(what, outcomes.total(), lost, outcomes["traceback"] + outcomes["crash"], note)
