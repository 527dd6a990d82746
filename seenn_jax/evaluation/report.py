"""What an evaluation found, shown: on the console, as JSON, as two pictures and as one HTML page.

Everything here reads the same plain dict, `result`, which is what result.json holds:

- exit (one of evaluator.EXITS), threshold (a float; None for 'full') and
  threshold_rule (how it was chosen, a phrase);
- accuracy, average_timesteps, and by timestep t = 1..T the lists exit_shares, static_accuracy;
- sweep: a list of {threshold, accuracy, average_timesteps}, empty for 'full';
- guarantee: a `calibration.Guarantee` as a dict, with reported_risk, the mean loss on the split
  that is reported; None where none was asked for;
- policy: for that exit its candidates, beta, macs (of the policy network), network_macs (of one
  timestep), collapsed_to (the timesteps of every sample, or None) and confidence, SEENN-I beside
  it: threshold, accuracy, average_timesteps, sweep; else None. threshold is then the price;
- replayed_accuracy: of these exits by the answers of all ticks at once, as are static_accuracy,
  sweeps and SEENN-I's;
- aet, oracle_aet, oracle_accuracy (of an exit that knows the labels), num_samples, timesteps (T),
  images_per_second (or None);
- dataset, dataset_note (or None), split, seed, revision, versions (a dict), device, workdir,
  checkpoint_step;
- optional: network ('spiking', 'converted' or 'ANN'), energy, as `energy.account` gives it (or
  None), and conversion, a report of `evaluator.conversion_report`.

Accuracies and shares are fractions of 1 in the dict, and percent in everything made from it.
"""

import io
import json
import os
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seenn_jax.energy import CRITICISM

# Okabe and Ito's hues, told apart under every common colour blindness, made darker or lighter where
# the background asks for it. The pictures are drawn in the light colours; inside the page each
# becomes a CSS variable, so that they follow the reader's theme.
LIGHT = {
    "paper": "#fdfdfc",
    "ink": "#1d2630",
    "muted": "#5d6874",
    "rule": "#dfe3e7",
    "exits": "#0072b2",
    "static": "#7a5200",
    "chosen": "#d55e00",
    "oracle": "#00795a",
}
DARK = {
    "paper": "#15191e",
    "ink": "#e6eaee",
    "muted": "#9aa5b1",
    "rule": "#313a44",
    "exits": "#56b4e9",
    "static": "#f0c75e",
    "chosen": "#ff8a3d",
    "oracle": "#2fc79b",
}

AET_DEFINITION = (
    "AET is T minus the sum over t < T of the accuracy at t: the timesteps an image needs until "
    "it is classified right, averaged as if an image once right stayed right, and T for an image "
    "that never is."
)
ORACLE_DEFINITION = (
    "Oracle AET is the average over images of the first timestep whose answer is right, and T "
    "where none is: what an exit that knew the labels would need, at the highest accuracy any "
    "exit can reach."
)
SOURCE = "Li et al., SEENN: Towards Temporal Spiking Early-Exit Neural Networks, NeurIPS 2023"


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print `result` (see the module's docstring) concisely; 80 columns are enough."""
    console.print()
    console.print(Text(_subject(result), style="bold"))
    console.print(Text(_origin(result), style="dim"))
    if result["dataset_note"]:
        console.print(Text(result["dataset_note"], style="dim"))

    by_timestep = _table("timestep", "static accuracy", "share of exits", "")
    for t, accuracy, share in _timestep_rows(result):
        bar = ProgressBar(total=1.0, completed=share, width=24)
        by_timestep.add_row(str(t), _percent(accuracy), _percent(share), bar)
    console.print(by_timestep)

    console.print(Text.assemble((_headline(result), "bold"), f" (T = {result['timesteps']})"))
    console.print(_choice(result), markup=False, highlight=False)
    if result["policy"]:
        console.print(_beside(result), markup=False, highlight=False)
    if result["guarantee"]:
        guarantee = _table("guarantee", "")
        for name, value in _guarantee_rows(result):
            guarantee.add_row(name, value)
        console.print(guarantee)
    if result["sweep"]:
        sweep = _table(_decider(result), "accuracy", "average timesteps", "")
        for row in _with_chosen(result, _thin(result["sweep"])):
            is_chosen = row["threshold"] == result["threshold"]
            sweep.add_row(
                f"{row['threshold']:.6f}",
                _percent(row["accuracy"]),
                f"{row['average_timesteps']:.3f}",
                "used" if is_chosen else "",
                style="bold" if is_chosen else "",
            )
        console.print(sweep)
    console.print(
        f"AET {result['aet']:.3f}, oracle AET {result['oracle_aet']:.3f} timesteps",
        highlight=False,
    )
    if result.get("energy"):
        header, *rows = _energy_rows(result)
        bills = _table(*header)
        for t, row in enumerate(rows):
            # By timestep, 1, 2, 4 ... and T are enough here.
            if t & (t - 1) == 0 or t >= result["timesteps"]:
                bills.add_row(*row)
        console.print(bills)
        console.print(f"{_rates(result)}. {CRITICISM}", highlight=False)
    if result["images_per_second"] is not None:
        console.print(f"{result['images_per_second']:,.0f} images/s", highlight=False)


def print_conversions(reports: list[dict[str, Any]], console: Console) -> None:
    """Print reports of `evaluator.conversion_report`: accuracy of all, and the layers of one."""
    for heading, rows in _conversion_tables(reports):
        console.print(Text(heading, style="bold"))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for i, name in enumerate(rows[0]):
            figure = i > 1 or name == "threshold"
            table.add_column(
                name, overflow="fold", no_wrap=figure, justify="right" if figure else "left"
            )
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)


def _table(*columns: str) -> Table:
    """An empty table of right-aligned figures; an unnamed last column holds what is no figure."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def write_report(result: dict[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Write result.json, curve.png, exits.png and report.html into `folder`, made if need be.

    Each file is put in place whole or not at all, result.json last. report.html needs nothing
    beside it.

    Returns: the path of report.html.
    Raises: ValueError if a figure of `result` is NaN or infinite, before anything is written.
    """
    as_json = json.dumps(result, indent=2, allow_nan=False) + "\n"
    curve, exits = _draw_curve(result), _draw_exits(result)
    page = _page(result, curve=_svg(curve, "curve"), exits=_svg(exits, "exits"))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _put(folder / "curve.png", _rendered(curve, format="png", dpi=160))
    _put(folder / "exits.png", _rendered(exits, format="png", dpi=160))
    _put(folder / "report.html", page.encode())
    _put(folder / "result.json", as_json.encode())
    return folder / "report.html"


def _put(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that no reader ever sees a part of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# --- What is said in more than one place ------------------------------------------------------


def _decider(result: dict[str, Any]) -> str:
    """What `threshold` is called."""
    return "price" if result["exit"] == "policy" else "threshold"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _subject(result: dict[str, Any]) -> str:
    samples = _plural(result["num_samples"], "sample")
    how = "no early exit" if result["exit"] == "full" else f"{result['exit']} exit"
    kinds = {"converted": ", converted network", "ANN": ", the ANN itself"}
    kind = kinds.get(result.get("network"), "")
    return f"{result['dataset']}, {result['split']} split, {samples}, {how}{kind}"


def _origin(result: dict[str, Any]) -> str:
    return f"{result['workdir']}, checkpoint of step {result['checkpoint_step']:,}"


def _headline(result: dict[str, Any]) -> str:
    average = f"{result['average_timesteps']:.3f}"
    return f"accuracy {_percent(result['accuracy'])} at {average} timesteps on average"


def _choice(result: dict[str, Any]) -> str:
    if result["threshold"] is None:
        return "no threshold: every sample runs all timesteps"
    if result["exit"] == "policy":
        return (
            f"price of a timestep {result['threshold']:.6g} nats, {result['threshold_rule']}; "
            f"{_policy_words(result['policy'])}"
        )
    return f"{result['exit']} threshold {result['threshold']:.6g}, {result['threshold_rule']}"


def _policy_words(policy: dict[str, Any]) -> str:
    cost = policy["macs"] / policy["network_macs"]
    text = (
        f"candidates {', '.join(map(str, policy['candidates']))}, beta {policy['beta']:g}, policy "
        f"network {policy['macs'] / 1e6:.2f} MMAC ({_percent(cost)} of one dense timestep)"
    )
    if policy["collapsed_to"] is not None:
        text += f"; the policy has collapsed: t = {policy['collapsed_to']} for every sample"
    return text


def _beside(result: dict[str, Any]) -> str:
    """SEENN-I at the same average timesteps, next to SEENN-II."""
    other, replayed = result["policy"]["confidence"], result["replayed_accuracy"]
    return (
        f"SEENN-I (confidence {other['threshold']:.6g}) on the same network, replayed from the "
        f"answers of all ticks at once: {_percent(other['accuracy'])} at "
        f"{other['average_timesteps']:.3f} timesteps; the policy replayed likewise: "
        f"{_percent(replayed)}, {100 * (replayed - other['accuracy']):+.2f} points from it"
    )


def _guarantee_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What was certified, on what, and how it came out on the split that is reported."""
    found = result["guarantee"]
    return [
        ("loss", found["loss"]),
        ("largest risk eps", f"{found['eps']:g}"),
        ("delta", f"{found['delta']:g}"),
        ("calibration samples n", f"{found['n']:,}"),
        ("threshold", f"{found['threshold']:.6f}"),
        ("average timesteps on them", f"{found['average_timesteps']:.3f}"),
        ("risk on them", f"{found['empirical_risk']:.5f}"),
        ("p-value", f"{found['p_value']:.3g}"),
        ("certified", "yes" if found["certified"] else "no: all T run"),
        (f"risk on the {result['split']} split", f"{found['reported_risk']:.5f}"),
    ]


def _timestep_rows(result: dict[str, Any]) -> list[tuple[int, float, float]]:
    """The table by timestep: (t, static accuracy, share of exits) for t = 1..T."""
    return [
        (t, accuracy, share)
        for t, (accuracy, share) in enumerate(
            zip(result["static_accuracy"], result["exit_shares"], strict=True), start=1
        )
    ]


def _conversion_tables(reports: list[dict[str, Any]]) -> list[tuple[str, list[list[str]]]]:
    """(heading, rows) of each table; the first row of a table names its columns."""
    first = reports[0]
    # Short enough for 80 columns.
    start, *later = first["timesteps"]
    ticks = [f"t = {start}", *map(str, later)]
    accuracy = [["run", "activation", "ANN", *ticks]]
    for report in reports:
        levels = report["quantization_levels"]
        kind = report["activation"] + (f", L {levels}" if levels else "")
        figures = (f"{100 * x:.2f}" for x in [report["ann_accuracy"], *report["accuracy"]])
        accuracy.append([report["workdir"], kind, *figures])
    of = f"{first['dataset']}, {first['split']} split"
    tables = [(f"Accuracy in % once converted, {of}", accuracy)]
    if len(reports) == 1:
        layers = [["layer", "threshold", *ticks]]
        for layer in first["layers"]:
            errors = [f"{error:.4f}" for error in layer["error"]]
            layers.append([layer["place"], f"{layer['threshold']:.3f}", *errors])
        tables.append(("Mean absolute error of a layer's average output", layers))
    return tables


def _energy_rows(result: dict[str, Any]) -> list[list[str]]:
    """The bills of an image: names, then at its exit, at each t for everyone, and as an ANN."""
    found = result["energy"]
    bills = [("at the exit", found["at_exit"])]
    bills += [(f"t = {t}", bill) for t, bill in enumerate(found["by_timestep"], start=1)]
    bills.append(("as an ANN", found["ann"]))
    rows = [["per image", "synaptic operations", "MACs", "energy", "stem each timestep"]]
    for name, bill in bills:
        again = bill.get("picojoules_stem_each_timestep")
        rows.append(
            [
                name,
                _millions(bill["synaptic_operations"]) if "synaptic_operations" in bill else "",
                _millions(bill["macs"]),
                _joules(bill["picojoules"]),
                "" if again is None else _joules(again),
            ]
        )
    return rows


def _layer_rows(result: dict[str, Any]) -> list[list[str]]:
    return [
        ["layer", "receives", "dense MACs", "operations per image"],
        *(
            [
                layer["place"],
                layer["receives"],
                _millions(layer["macs"]),
                f"{_millions(layer['operations'])} {kind}",
            ]
            for layer in result["energy"]["layers"]
            for kind in ("AC" if layer["receives"] == "spikes" else "MAC",)
        ),
    ]


def _rates(result: dict[str, Any]) -> str:
    found = result["energy"]["rates"]
    low, high = (choose(found, key=lambda layer: layer["rate"]) for choose in (min, max))
    text = (
        f"Of its neurons {_percent(low['rate'])} ({low['place']}) to {_percent(high['rate'])} "
        f"({high['place']}) fire in a timestep"
    )
    policy = result["energy"]["policy_macs"]
    return f"{text}; with {_millions(policy)} MACs of the policy at the exit" if policy else text


def _millions(count: int | float) -> str:
    return f"{count / 1e6:,.3f} M"


def _joules(picojoules: int | float) -> str:
    if picojoules < 1e9:
        return f"{picojoules / 1e3:,.1f} nJ"
    return f"{picojoules / 1e9:,.3f} mJ"


def _by_timesteps(sweep: list[dict[str, float]]) -> list[dict[str, float]]:
    return sorted(sweep, key=lambda row: (row["average_timesteps"], row["threshold"]))


def _thin(sweep: list[dict[str, float]], rows: int = 9) -> list[dict[str, float]]:
    """At most `rows` rows of `sweep`, spread evenly over the average timesteps, ends included."""
    ordered = _by_timesteps(sweep)
    first, last = ordered[0]["average_timesteps"], ordered[-1]["average_timesteps"]
    kept = []
    for i in range(rows):
        target = first + (last - first) * i / (rows - 1)
        nearest = min(ordered, key=lambda row: abs(row["average_timesteps"] - target))
        if nearest not in kept:
            kept.append(nearest)
    return kept


def _with_chosen(result: dict[str, Any], sweep: list[dict[str, float]]) -> list[dict[str, float]]:
    """`sweep` by average timesteps, with the threshold that was used among its rows."""
    chosen = {key: result[key] for key in ("threshold", "accuracy", "average_timesteps")}
    others = [row for row in sweep if row["threshold"] != chosen["threshold"]]
    return _by_timesteps([*others, chosen])


# --- Pictures ---------------------------------------------------------------------------------


def _draw_curve(result: dict[str, Any]) -> Figure:
    """Accuracy against average timesteps: the sweep, each t for everyone, what was chosen."""
    timesteps = result["timesteps"]
    figure, axes = _canvas(6.4, "average timesteps per sample", "accuracy (%)")
    if result["sweep"]:
        sweep = _by_timesteps(result["sweep"])
        axes.plot(
            [row["average_timesteps"] for row in sweep],
            [100 * row["accuracy"] for row in sweep],
            color=LIGHT["exits"],
            linewidth=2.2,
            solid_joinstyle="round",
            label=f"{result['exit']} exit, all {_decider(result)}s",
        )
    if result["policy"]:
        other = _by_timesteps(result["policy"]["confidence"]["sweep"])
        axes.plot(
            [row["average_timesteps"] for row in other],
            [100 * row["accuracy"] for row in other],
            color=LIGHT["muted"],
            linewidth=1.6,
            label="confidence exit (SEENN-I), all thresholds",
        )
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
            label=f"{_decider(result)} used, {result['threshold']:.4g}",
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
    margin = 0.06 * max(timesteps - 1, 1)
    axes.set_xlim(1 - margin, timesteps + margin)
    axes.margins(y=0.1)
    bottom, top = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if max(bottom, 0) <= tick <= min(top, 100)])
    axes.set_ylim(bottom, top)
    axes.legend(loc="best", frameon=False, labelcolor=LIGHT["ink"], fontsize=9.5)
    return figure


def _draw_exits(result: dict[str, Any]) -> Figure:
    """The share of samples that exit at each timestep, as bars."""
    timesteps = result["timesteps"]
    figure, axes = _canvas(4.4, "timestep of the exit", "share of samples (%)")
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


def _canvas(width: float, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """An empty picture in the common style, `width` inches wide, with timesteps along x."""
    figure = Figure(figsize=(width, 4.0), layout="constrained", facecolor=LIGHT["paper"])
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
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


def _rendered(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def _svg(figure: Figure, name: str) -> str:
    """`figure` as an <svg> to stand in a page: its colours CSS variables, its ids its own."""
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    svg = _rendered(figure, format="svg", transparent=True, metadata=no_metadata).decode()
    svg = svg[svg.index("<svg") :]
    for key, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{key})")
    for reference in ('id="', 'href="#', "url(#"):
        svg = svg.replace(reference, f"{reference}{name}-")
    return svg


# --- The page ---------------------------------------------------------------------------------

_STYLE = """
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.2rem 1.25rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 0.6rem; }
p { margin: 0.4rem 0; }
.muted { color: var(--muted); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr));
  gap: 0.8rem; margin: 1.5rem 0 0.9rem; }
.cards div { border: 1px solid var(--rule); border-radius: 10px; padding: 0.8rem 1rem; }
.cards strong, .cards b, .cards span { display: block; }
.cards strong { font-size: 1.55rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.cards b { font-size: 0.9rem; font-weight: 500; }
.cards span { font-size: 0.85rem; color: var(--muted); }
.row { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
figure { margin: 1.4rem 0 0; flex: 1 1 18rem; }
figure.wide { flex: 1.4545 1 26rem; }
figure svg { display: block; width: 100%; height: auto; }
section.text { flex: 1 1 22rem; font-size: 0.92rem; }
table { border-collapse: collapse; }
th, td { padding: 0.32rem 1.6rem 0.32rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
thead th { font-size: 0.85rem; color: var(--muted); }
.figures { font-variant-numeric: tabular-nums; }
.figures th, .figures td { text-align: right; padding: 0.32rem 0.4rem 0.32rem 1.2rem; }
.figures td { white-space: nowrap; }
.used { font-weight: 650; color: var(--chosen); }
.facts { width: 100%; }
.facts th { font-weight: 400; color: var(--muted); white-space: nowrap; width: 1%; }
.facts td { overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--exits); }
details table { margin-top: 0.8rem; }
"""


def _page(result: dict[str, Any], curve: str, exits: str) -> str:
    """The whole HTML page around the two pictures, given as <svg>."""
    title = f"{result['dataset']}: {_headline(result)}"
    note = (
        f'<p class="muted">{escape(result["dataset_note"])}</p>' if result["dataset_note"] else ""
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
{_STYLE.strip()}
</style>
</head>
<body>
<main>
<h1>{escape(_subject(result))}</h1>
<p class="muted">{escape(_origin(result))}</p>
{note}
{_cards(result)}
<p>{escape(_choice(result))}</p>
{f"<p>{escape(_beside(result))}</p>" if result["policy"] else ""}
<div class="row">
<figure class="wide" role="img" aria-label="Accuracy against average timesteps">{curve}</figure>
<figure role="img" aria-label="Share of samples that exit at each timestep">{exits}</figure>
</div>
<div class="row">
<section><h2>By timestep</h2>
{_timestep_table(result)}</section>
<section class="text"><h2>Definitions</h2>
<p>Static accuracy at t is the accuracy when every sample runs t timesteps.</p>
<p>{escape(AET_DEFINITION)}</p>
<p>{escape(ORACLE_DEFINITION)}</p>
<p class="muted">Both after {escape(SOURCE)}.</p></section>
</div>
{_guarantee_table(result)}
{_sweep_table(result)}
{_energy_section(result)}
{_conversion_section(result)}
<h2>Where these figures come from</h2>
{_facts_table(result)}
</main>
</body>
</html>
"""


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{key}: {colour};" for key, colour in colours.items())


def _cards(result: dict[str, Any]) -> str:
    timesteps = result["timesteps"]
    # Of the same answers: those of a run in slots can differ from them by rounding.
    replayed = result["replayed_accuracy"]
    difference = 100 * (replayed - result["static_accuracy"][-1])
    against = f"{difference:+.2f} points against T = {timesteps}"
    if replayed != result["accuracy"]:
        against += f" ({_percent(replayed)} replayed from the answers of all ticks at once)"
    cards = [
        (_percent(result["accuracy"]), "accuracy", against),
        (f"{result['average_timesteps']:.3f}", "timesteps on average", f"of T = {timesteps}"),
        (f"{result['aet']:.3f}", "AET, in timesteps", f"oracle {result['oracle_aet']:.3f}"),
    ]
    if result["images_per_second"] is not None:
        cards.append((f"{result['images_per_second']:,.0f}", "images per second", result["device"]))
    divs = "\n".join(
        f"<div><strong>{figure}</strong><b>{name}</b><span>{escape(detail)}</span></div>"
        for figure, name, detail in cards
    )
    return f'<div class="cards">\n{divs}\n</div>'


def _timestep_table(result: dict[str, Any]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{t}</th><td>{_percent(accuracy)}</td><td>{_percent(share)}</td></tr>'
        for t, accuracy, share in _timestep_rows(result)
    )
    return f"""<table class="figures">
<thead><tr><th scope="col">timestep</th><th scope="col">static accuracy</th>
<th scope="col">share of exits</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>"""


def _guarantee_table(result: dict[str, Any]) -> str:
    """What `--risk` certified; nothing without it."""
    if not result["guarantee"]:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in _guarantee_rows(result)
    )
    return f'<h2>Guarantee</h2>\n<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'


def _sweep_table(result: dict[str, Any]) -> str:
    """All thresholds, folded away; nothing where no threshold decides."""
    if not result["sweep"]:
        return ""
    rows = []
    for row in _with_chosen(result, result["sweep"]):
        is_chosen = row["threshold"] == result["threshold"]
        attribute = ' class="used"' if is_chosen else ""
        rows.append(
            f"<tr{attribute}><td>{row['threshold']:.6f}</td>"
            f"<td>{_percent(row['accuracy'])}</td><td>{row['average_timesteps']:.3f}</td>"
            f"<td>{'used' if is_chosen else ''}</td></tr>"
        )
    body = "\n".join(rows)
    return f"""<h2>By {_decider(result)}</h2>
<details><summary>{_plural(len(rows), _decider(result))} of the {escape(result["exit"])} exit
</summary>
<table class="figures">
<thead><tr><th scope="col">{_decider(result)}</th><th scope="col">accuracy</th>
<th scope="col">average timesteps</th><th></th></tr></thead>
<tbody>
{body}
</tbody>
</table></details>"""


def _conversion_section(result: dict[str, Any]) -> str:
    if "conversion" not in result:
        return ""

    return "\n".join(
        f"<h2>{escape(heading)}</h2>\n{_rows_table(rows)}"
        for heading, rows in _conversion_tables([result["conversion"]])
    )


def _energy_section(result: dict[str, Any]) -> str:
    """What an image costs, and where; nothing without `--energy`."""
    if not result.get("energy"):
        return ""
    rates = [["neurons", "fire in a timestep"]]
    rates += [[layer["place"], _percent(layer["rate"])] for layer in result["energy"]["rates"]]
    return f"""<h2>Energy</h2>
<p>{escape(_rates(result))}. {escape(CRITICISM)}</p>
{_rows_table(_energy_rows(result))}
<details><summary>Layer by layer</summary>
<div class="row">{_rows_table(_layer_rows(result))}{_rows_table(rates)}</div></details>"""


def _rows_table(rows: list[list[str]]) -> str:
    """A table of strings whose first row names the columns."""

    def line(cells, kind):
        return "<tr>" + "".join(f"<{kind}>{escape(c)}</{kind}>" for c in cells) + "</tr>"

    return (
        f'<table class="figures">\n<thead>{line(rows[0], "th")}</thead>'
        f"\n<tbody>\n{''.join(line(row, 'td') for row in rows[1:])}\n</tbody>\n</table>"
    )


def _facts_table(result: dict[str, Any]) -> str:
    threshold = "none" if result["threshold"] is None else repr(result["threshold"])
    facts = {
        "exit": result["exit"],
        _decider(result): threshold,
        f"{_decider(result)} rule": result["threshold_rule"],
        "data": f"{result['dataset']}, {result['split']} split, "
        + _plural(result["num_samples"], "sample"),
        "workdir": result["workdir"],
        "checkpoint": f"step {result['checkpoint_step']:,}",
        "seed": result["seed"],
        "revision": result["revision"],
        "device": result["device"],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    }
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(fact))}</td></tr>'
        for name, fact in facts.items()
    )
    return f'<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'
