"""Where the marks of the page's charts lie: in percent of a plot, from its top left corner.

The templates draw them as SVG paths that stretch with the page, and write the ticks in HTML, whose
letters keep their size.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib.ticker import MaxNLocator

from seenn_jax.report.words import (
    by_timesteps,
    decider,
    headline,
    percent,
    thin,
    timestep_rows,
    with_chosen,
)

SWEEP = 200  # thresholds that the slider knows
FEW = 10  # samples in a bin, below which its accuracy says little
TIMESTEPS = (1.03, 1.1, 1.3, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # of ticks
APART = 9  # percent of a plot between two ticks, at least


Number = float | int


class Axis(NamedTuple):
    """Where values lie along an axis, and its ticks, both from 0 to 100.

    Attributes:
      at: `value -> place`.
      ticks: (place, what it says) of each.
    """

    at: Callable[[Number], Number]
    ticks: list[tuple[Number, str]]


def stretched(average: Number, timesteps: int) -> float:
    """Where an average lies between 1 and T, from 0 to 1, stretched near 1, where most of it is."""
    return math.sqrt((average - 1) / (timesteps - 1)) if timesteps > 1 else 0.5


def timesteps_axis(timesteps: int) -> Axis:
    """An axis of average timesteps from 1 to T; see `stretched`."""

    def at(average):
        return 100 * stretched(average, timesteps)

    ticks = [(at(timesteps), f"{timesteps}")]
    for t in reversed(TIMESTEPS):  # from the right, where the whole numbers are
        if APART <= at(t) <= ticks[-1][0] - APART:
            ticks.append((at(t), f"{t:g}"))
    return Axis(at, [(at(1), "1")] * (timesteps > 1) + ticks[::-1])


def linear_axis(
    low: Number, high: Number, bounds: tuple[Number, Number], unit: str = "", whole: bool = False
) -> Axis:
    """An axis of round, or whole, numbers around `low` and `high`, within bounds."""
    if high - low < 1e-9:
        low, high = low - 1, high + 1
    values = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    low, high = max(bounds[0], float(values[0])), min(bounds[1], float(values[-1]))

    def at(value):
        return 100 * (value - low) / (high - low) if high > low else 50

    ticks = [(at(v), f"{v:g}{unit}") for v in map(float, values) if low - 1e-9 <= v <= high + 1e-9]
    return Axis(at, ticks)


def line(x: Axis, y: Axis, points: Iterable[tuple[Number, Number]]) -> str:
    """The SVG path through points."""
    return "M" + " ".join(f"{x.at(a):.2f},{100 - y.at(b):.2f}" for a, b in points)


def dot(x: Axis, y: Axis, a: Number, b: Number) -> str:
    """An SVG path of no length: with round ends it is a dot that does not stretch."""
    return f"{line(x, y, [(a, b)])}h0"


def curve(result: dict[str, Any]) -> dict[str, Any]:
    """Accuracy against average timesteps, and what the slider moves."""
    rows = with_chosen(result, thin(result["sweep"], SWEEP)) if result["sweep"] else []
    sweep = _points(rows)
    beside = _points(result["policy"]["confidence"]["sweep"]) if result["policy"] else []
    static = [(t, 100 * accuracy) for t, accuracy, _ in timestep_rows(result)]
    used = (result["average_timesteps"], 100 * result["accuracy"])
    heights = [accuracy for _, accuracy in (*sweep, *beside, *static, used)]
    x = timesteps_axis(result["timesteps"])
    y = linear_axis(min(heights), max(heights), (0, 100), " %")
    return {
        "x": x,
        "y": y,
        "sweep": line(x, y, sweep) if sweep else "",
        "beside": line(x, y, beside) if beside else "",
        "static": "".join(dot(x, y, *point) for point in static),
        "all": line(x, y, [(1, static[-1][1]), (result["timesteps"], static[-1][1])]),
        "oracle": x.at(result["oracle_aet"]),
        "used": dot(x, y, *used),
        "slider": _slider(result, rows, x, y) if rows else None,
    }


def _points(sweep: list[dict[str, Any]]) -> list[tuple[Number, Number]]:
    return [(row["average_timesteps"], 100 * row["accuracy"]) for row in by_timesteps(sweep)]


def _slider(result: dict[str, Any], rows: list[dict[str, Any]], x: Axis, y: Axis) -> dict[str, Any]:
    """What stands in the page for each threshold, in words: the script only puts it there."""
    samples = result["num_samples"]
    return {
        "used": [row["threshold"] for row in rows].index(result["threshold"]),
        "rows": [
            {
                "shows": {
                    "threshold": f"{row['threshold']:.6g}",
                    "average": f"{row['average_timesteps']:.3f}",
                    "headline": headline(result | row),
                },
                "point": dot(x, y, row["average_timesteps"], 100 * row["accuracy"]),
                "shares": [percent(count / samples) for count in row.get("exit_counts", ())],
            }
            for row in rows
        ],
        "name": decider(result),
    }


def reliability(calibration: dict[str, Any]) -> dict[str, Any]:
    """Accuracy against confidence: a bar for each bin that has samples."""
    x = y = linear_axis(0, 100, (0, 100), " %")
    bins = calibration["bins"]
    width = 100 / len(bins)
    bars = [
        {
            "x": m * width,
            "width": width,
            "height": 100 * row["accuracy"],
            "few": row["samples"] < FEW,
        }
        for m, row in enumerate(bins)
        if row["samples"]
    ]
    header = ["confidence", "samples", "mean confidence", "accuracy"]
    rows = [
        [
            f"{100 * m / len(bins):.0f} to {100 * (m + 1) / len(bins):.0f} %",
            f"{row['samples']:,}",
            percent(row["confidence"]),
            percent(row["accuracy"]),
        ]
        for m, row in enumerate(bins)
        if row["samples"]
    ]
    return {"x": x, "y": y, "bars": bars, "rows": [header, *rows]}


def confidences(by_timestep: list[dict[str, list[float] | None]]) -> dict[str, Any]:
    """The spread of confidence at each t: of right answers, and of wrong ones beside them."""
    steps = len(by_timestep)
    every = math.ceil(steps / 8)
    ticks = [(100 * (t - 0.5) / steps, f"{t}") for t in range(1, steps + 1, every)]
    x = Axis(lambda t: 100 * (t - 0.5) / steps, ticks)
    y = linear_axis(0, 100, (0, 100), " %")
    marks = []
    rows = [["timestep", "answers", "10 %", "25 %", "median", "75 %", "90 %"]]
    for t, found in enumerate(by_timestep, start=1):
        for kind, aside in (("right", -0.14), ("wrong", 0.14)):
            if found[kind] is None:
                continue
            low, first, middle, third, high = (100 * q for q in found[kind])
            place = t + aside
            marks.append(
                {
                    "kind": kind,
                    "range": line(x, y, [(place, low), (place, high)]),
                    "middle": line(x, y, [(place, first), (place, third)]),
                    "median": dot(x, y, place, middle),
                }
            )
            rows.append([f"{t}", kind, *(f"{100 * q:.1f} %" for q in found[kind])])
    return {"x": x, "y": y, "marks": marks, "rows": rows}


def training(metrics: Sequence[dict[str, Number]]) -> list[dict[str, Any]]:
    """A chart of the loss and one of accuracies, against epochs; those of which there is anything.

    Of accuracies at t the first and the last are shown.
    """
    names = list(dict.fromkeys(name for row in metrics for name in row))
    between = [name for name in names if re.fullmatch(r"validation/accuracy_\d+", name)][1:-1]
    accuracies = [name for name in names if "accuracy" in name and name not in between]
    charts = [
        _history(metrics, "loss", [name for name in names if name == "train/loss"], 1, ""),
        _history(metrics, "accuracy", accuracies, 100, " %"),
    ]
    return [chart for chart in charts if chart["lines"]]


def _words(name: str) -> str:
    """The name of a scalar: "validation/accuracy_4" is "validation accuracy at t = 4"."""
    return re.sub(r"_(\d+)$", r" at t = \1", name).replace("/", " ").replace("_", " ")


def _history(
    metrics: Sequence[dict[str, Number]], what: str, names: list[str], scale: int, unit: str
) -> dict[str, Any]:
    series = {
        name: [(row["epoch"], scale * row[name]) for row in metrics if name in row]
        for name in names
    }
    values = [value for points in series.values() for _, value in points] or [0]
    epochs = [row["epoch"] for row in metrics] or [1]
    x = linear_axis(min(1, *epochs), max(epochs), (1, max(epochs)), whole=True)
    bounds = (0, 100) if scale == 100 else (-math.inf, math.inf)
    y = linear_axis(min(values), max(values), bounds, unit)
    return {
        "what": what,
        "x": x,
        "y": y,
        "lines": [
            {
                "name": _words(name),
                "path": f"{line(x, y, points)}h0",
                "last": f"{points[-1][1]:.4g}{unit}",
            }
            for name, points in series.items()
        ],
    }
