"""The page of a result: one HTML file, from the templates beside this module."""

import functools
from typing import Any

import jinja2

from seenn_jax.energy import CRITICISM
from seenn_jax.evaluation.details import Details
from seenn_jax.memory import MODEL
from seenn_jax.report import charts, words
from seenn_jax.report.colours import DARK, LIGHT
from seenn_jax.report.thumbnails import data_uri
from seenn_jax.report.words import decider, percent, plural

CLASSES = 20  # that are shown at once; of more the hardest, and no matrix
PAIRS = 20  # confused pairs that are shown


def page(result: dict[str, Any], details: Details | None = None) -> str:
    """The whole HTML page, which needs nothing beside it.

    Args:
      result: see `words`.
      details: images, training and config; without them their sections are left out.
    """
    conversion = [result["conversion"]] if "conversion" in result else []
    return _template().render(
        result=result,
        details=details,
        words=words,
        light=LIGHT,
        dark=DARK,
        cards=_cards(result),
        curve=charts.curve(result),
        sweep=_sweep_rows(result),
        classes=_classes(result),
        mistakes=_mistakes(result),
        confusion=_confusion(result),
        reliability=result.get("calibration") and charts.reliability(result["calibration"]),
        confidences=result.get("confidence_by_timestep")
        and charts.confidences(result["confidence_by_timestep"]),
        training=charts.training(details.training) if details else [],
        settings=_settings(details) if details else None,
        firing=_firing(result),
        criticism=CRITICISM,
        model=MODEL,
        conversions=words.conversion_tables(conversion) if conversion else [],
        facts=_facts(result),
        data_uri=data_uri,
        shades=_shades(result["timesteps"]),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("seenn_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "unbroken": _unbroken}
    return environment.get_template("page.html")


def _unbroken(text: str) -> str:
    """A text whose lines don't end before a percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _cards(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(figure, its name, a remark) of what matters most."""
    timesteps = result["timesteps"]
    # Of the same answers: those of a run in slots can differ from them by rounding.
    replayed = result["replayed_accuracy"]
    difference = 100 * (replayed - result["static_accuracy"][-1])
    against = f"{difference:+.2f} points against T = {timesteps}"
    if percent(replayed) != percent(result["accuracy"]):
        against += f" ({percent(replayed)} replayed from the answers of all ticks at once)"
    cards = [
        (percent(result["accuracy"]), "accuracy", against),
        (f"{result['average_timesteps']:.3f}", "timesteps on average", f"of T = {timesteps}"),
        (f"{result['aet']:.3f}", "AET, in timesteps", f"oracle {result['oracle_aet']:.3f}"),
    ]
    if result["images_per_second"] is not None:
        cards.append((f"{result['images_per_second']:,.0f}", "images per second", result["device"]))
    return cards


def _sweep_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    if not result["sweep"]:
        return []
    rows = words.with_chosen(result, result["sweep"])
    return [row | {"used": row["threshold"] == result["threshold"]} for row in rows]


def _classes(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The classes with the shares that leave at each t, those that take longest first."""
    found = []
    for row in result.get("by_class", ()):
        if not row["samples"]:
            continue
        counts, samples = row["exit_counts"], row["samples"]
        average = sum(t * count for t, count in enumerate(counts, start=1)) / samples
        stack = [(t, n / samples) for t, n in enumerate(counts, start=1) if n]
        found.append(row | {"average": average, "stack": stack})
    return sorted(found, key=lambda row: -row["average"])


def _shades(timesteps: int) -> list[float]:
    """How dark a bar is for each t from 1 to T: from 0.35 to 1."""
    return [0.35 + 0.65 * i / max(timesteps - 1, 1) for i in range(timesteps)]


def _mistakes(result: dict[str, Any]) -> list[list[str]]:
    """The pairs that are confused most, by name."""
    names = [row["class"] for row in result.get("by_class", ())]
    return [
        [names[pair["label"]], names[pair["answer"]], f"{pair['count']:,}"]
        for pair in result.get("mistakes", ())[:PAIRS]
    ]


def _confusion(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The confusion matrix, a row for each label: {class, cells of count and share}; few classes.

    A cell's share is of the row, which is what it is shaded by.
    """
    classes = result.get("by_class", ())
    if not 0 < len(classes) <= CLASSES:
        return []
    counts = [[0] * len(classes) for _ in classes]
    for label, row in enumerate(classes):
        counts[label][label] = row["right"]
    for pair in result["mistakes"]:
        counts[pair["label"]][pair["answer"]] = pair["count"]
    return [
        {
            "class": row["class"],
            "cells": [{"count": n, "share": n / max(row["samples"], 1)} for n in counts[label]],
        }
        for label, row in enumerate(classes)
    ]


def _settings(details: Details) -> dict[str, list[list[str]]]:
    """The config: "changed" is what differs from the defaults, "all" is everything."""
    rows = [[name, _shown(value), _shown(default)] for name, value, default in details.config]
    changed = [row for row in rows if row[1] != row[2]]
    header = ["setting", "value", "default"]
    return {"changed": [header, *changed], "all": [header, *rows]}


def _shown(value: Any) -> str:
    return str(value) if not isinstance(value, str) else value or '""'


def _firing(result: dict[str, Any]) -> list[list[str]]:
    rates = result["energy"]["rates"] if result.get("energy") else []
    header = ["neurons", "fire in a timestep"]
    return [header, *([layer["place"], percent(layer["rate"])] for layer in rates)]


def _facts(result: dict[str, Any]) -> dict[str, Any]:
    threshold = "none" if result["threshold"] is None else repr(result["threshold"])
    return {
        "exit": result["exit"],
        decider(result): threshold,
        f"{decider(result)} rule": result["threshold_rule"],
        "data": f"{result['dataset']}, {result['split']} split, "
        + plural(result["num_samples"], "sample"),
        "workdir": result["workdir"],
        "checkpoint": f"step {result['checkpoint_step']:,}",
        "seed": result["seed"],
        "revision": result["revision"],
        "device": result["device"],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    }
