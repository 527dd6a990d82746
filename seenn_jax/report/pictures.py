"""The two pictures of a result."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from seenn_jax.report.charts import timesteps_axis
from seenn_jax.report.colours import LIGHT
from seenn_jax.report.words import by_timesteps, decider


def draw_curve(result: dict[str, Any]) -> Figure:
    """Accuracy against average timesteps: the sweep, each t for everyone, what was chosen."""
    timesteps = result["timesteps"]
    figure, axes = canvas(6.4, "average timesteps per sample (stretched near 1)", "accuracy (%)")
    if result["sweep"]:
        label = f"{result['exit']} exit, every {decider(result)}"
        _plot_sweep(axes, result["sweep"], "exits", 2.2, label)
    if result["policy"]:
        other = result["policy"]["confidence"]["sweep"]
        _plot_sweep(axes, other, "muted", 1.6, "confidence exit (SEENN-I), every threshold")
    axes.plot(
        range(1, timesteps + 1),
        [100 * accuracy for accuracy in result["static_accuracy"]],
        linestyle="none",
        marker="o",
        markersize=7,
        color=LIGHT["static"],
        markeredgecolor=LIGHT["paper"],
        label="all samples run t timesteps",
        zorder=3,
    )
    if result["threshold"] is not None:
        axes.plot(
            [result["average_timesteps"]],
            [100 * result["accuracy"]],
            linestyle="none",
            marker="*",
            markersize=17,
            color=LIGHT["chosen"],
            markeredgecolor=LIGHT["paper"],
            label=f"{decider(result)} used, {result['threshold']:.4g}",
            zorder=4,
        )
    axes.axvline(
        result["oracle_aet"],
        color=LIGHT["oracle"],
        linestyle=(0, (4, 3)),
        linewidth=1.4,
        zorder=1,
        label=f"oracle AET, {result['oracle_aet']:.2f}",
    )
    axes.set_xscale("function", functions=(_stretched, _unstretched))
    ticks = [float(label) for _, label in timesteps_axis(timesteps).ticks]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    margin = 0.04 * _stretched(max(timesteps, 2))
    axes.set_xlim(*_unstretched([-margin, _stretched(timesteps) + margin]).tolist())
    axes.margins(y=0.1)
    bottom, top = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if max(bottom, 0) <= tick <= min(top, 100)])
    axes.set_ylim(bottom, top)
    axes.legend(loc="best", frameon=False, labelcolor=LIGHT["ink"], fontsize=9.5)
    return figure


def _stretched(average: Any) -> Any:
    """As `charts.stretched`, and mirrored below 1."""
    beyond = np.asarray(average) - 1
    return np.sign(beyond) * np.sqrt(np.abs(beyond))


def _unstretched(place: Any) -> Any:
    return 1 + np.sign(place) * np.square(place)


def _plot_sweep(
    axes: Axes, sweep: list[dict[str, Any]], color: str, width: float, label: str
) -> None:
    rows = by_timesteps(sweep)
    axes.plot(
        [row["average_timesteps"] for row in rows],
        [100 * row["accuracy"] for row in rows],
        color=LIGHT[color],
        linewidth=width,
        solid_joinstyle="round",
        label=label,
    )


def draw_exits(result: dict[str, Any]) -> Figure:
    """The share of samples that exit at each timestep, as bars."""
    timesteps = result["timesteps"]
    figure, axes = canvas(4.4, "timestep of the exit", "share of samples (%)")
    bars = axes.bar(
        range(1, timesteps + 1),
        [100 * share for share in result["exit_shares"]],
        width=0.62,
        color=LIGHT["exits"],
    )
    if timesteps <= 8:  # more labels than that would run into each other
        axes.bar_label(bars, fmt="%.1f", padding=3, color=LIGHT["ink"], fontsize=9.5)
    axes.set_xlim(0.4, timesteps + 0.6)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    return figure


def canvas(width: float, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """An empty picture in the common style, `width` inches wide, with timesteps along x."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, 4.0), layout=layout, facecolor=LIGHT["paper"])
    axes = figure.add_subplot(facecolor="none")
    axes.ticklabel_format(useOffset=False)
    axes.set_xlabel(xlabel, color=LIGHT["ink"], fontsize=10.5)
    axes.set_ylabel(ylabel, color=LIGHT["ink"], fontsize=10.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT["muted"])
    axes.tick_params(colors=LIGHT["muted"], labelsize=9.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=LIGHT["rule"], linewidth=0.9)
    axes.set_axisbelow(True)
    return figure, axes


def rendered(figure: Figure, **options: Any) -> bytes:
    """The file of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()
