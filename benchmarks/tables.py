"""Markdown of records: tables, numbers in words, and where figures come from."""

import re
import textwrap
from collections.abc import Iterable, Sequence

import records

from seenn_jax.errors import UserError


def all_of(name: str) -> list[dict]:
    """The records of results/NAME.json, with "file", the name."""
    return [{**record, "file": name} for record in records.load(records.RESULTS / f"{name}.json")]


def find(name: str, what: str) -> dict:
    """The one record of results/NAME.json that is of `what`.

    Raises:
      UserError: there is none, or there are several.
    """
    found = [record for record in all_of(name) if record["what"] == what]
    if len(found) != 1:
        raise UserError(
            f"{name}.json has {len(found)} records of {what!r}: one is printed; mend the file"
        )
    return found[0]


# --- Numbers -------------------------------------------------------------------------------------


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    values = list(values)
    return sum(values) / len(values)


def percent(share: float) -> str:
    """A share in percent, to hundredths."""
    return f"{100 * share:.2f}"


def count(value: float) -> str:
    """Rounded, in groups of three digits."""
    return f"{value:,.0f}"


def minutes(seconds: float) -> str:
    """Seconds as minutes and seconds."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole} min {rest} s" if whole else f"{rest} s"


def span(values: Iterable[float], words=percent) -> str:
    """The smallest and the largest."""
    values = list(values)
    return f"{words(min(values))} to {words(max(values))}"


# --- Markdown ------------------------------------------------------------------------------------


def table(header: Sequence, rows: Iterable[Sequence]) -> str:
    """A table, whose cells are words or numbers."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def by_timestep(first: str, accuracy: Sequence[float], timesteps: Iterable[int] | None = None):
    """A table of one row: the accuracy after each number of timesteps."""
    header = [first, *(f"t = {t}" for t in timesteps or range(1, len(accuracy) + 1))]
    return table(header, [["accuracy in percent", *map(percent, accuracy)]])


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it, each a paragraph, a table or blocks of `sources`."""
    whole = ("|", "```", "![")
    wrapped = (part if part.startswith(whole) else paragraph(part) for part in parts)
    return "\n\n".join([f"## {title}", *wrapped])


def paragraph(text: str) -> str:
    """A paragraph in lines of this repository's width."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def sources(*found: dict) -> str:
    """Commands, revisions, devices and notes of records; what all notes say stands once, below.

    Records of one command, revision and note stand together.
    """
    notes = [sentences(record["note"]) for record in found]
    shared = [s for s in notes[0] if all(s in note for note in notes)] if len(found) > 1 else []
    groups: dict[tuple, list[dict]] = {}
    for record in found:
        key = (record["command"], record["revision"], record["device"], record["note"])
        groups.setdefault(key, []).append(record)
    blocks = [_source(group, shared) for group in groups.values()]
    return "\n\n".join(
        [*blocks, *([paragraph(f"Of all these: {' '.join(shared)}")] if shared else [])]
    )


def sentences(note: str) -> list[str]:
    """A note, cut into its sentences."""
    return re.split(r"(?<=\.) (?=\S)", note) if note else []


def _source(group: list[dict], shared: list[str]) -> str:
    """The block of commands and the paragraph of records that were measured together."""
    record = group[0]
    commands = record["command"].replace("; ", "\n")
    versions = record["versions"] or {}
    about = [
        f"revision `{record['revision']}`",
        *([] if record["seed"] is None else [f"seed {record['seed']}"]),
        *([] if record["device"] is None else [record["device"]]),
        *(f"{name} {versions[name]}" for name in ("jax", "libtpu") if name in versions),
        f"`results/{record['file']}.json`",
    ]
    whats = "; ".join(record["what"] for record in group)
    own = [sentence for sentence in sentences(record["note"]) if sentence not in shared]
    text = " ".join([f"{whats}: {', '.join(about)}.", *own])
    return f"```sh\n{commands}\n```\n\n{paragraph(text)}"
