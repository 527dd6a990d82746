"""The page of a result: one HTML file."""

from html import escape
from typing import Any

from seenn_jax.energy import CRITICISM
from seenn_jax.report.pictures import DARK, LIGHT
from seenn_jax.report.words import (
    AET_DEFINITION,
    ORACLE_DEFINITION,
    SOURCE,
    beside,
    choice,
    conversion_tables,
    decider,
    energy_rows,
    guarantee_rows,
    headline,
    layer_rows,
    origin,
    percent,
    plural,
    rates,
    subject,
    timestep_rows,
    with_chosen,
)

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


def page(result: dict[str, Any], curve: str, exits: str) -> str:
    """The whole HTML page around the two pictures, given as <svg>."""
    title = f"{result['dataset']}: {headline(result)}"
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
<h1>{escape(subject(result))}</h1>
<p class="muted">{escape(origin(result))}</p>
{note}
{_cards(result)}
<p>{escape(choice(result))}</p>
{f"<p>{escape(beside(result))}</p>" if result["policy"] else ""}
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
        against += f" ({percent(replayed)} replayed from the answers of all ticks at once)"
    cards = [
        (percent(result["accuracy"]), "accuracy", against),
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
        f'<tr><th scope="row">{t}</th><td>{percent(accuracy)}</td><td>{percent(share)}</td></tr>'
        for t, accuracy, share in timestep_rows(result)
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
        for name, value in guarantee_rows(result)
    )
    return f'<h2>Guarantee</h2>\n<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'


def _sweep_table(result: dict[str, Any]) -> str:
    """All thresholds, folded away; nothing where no threshold decides."""
    if not result["sweep"]:
        return ""
    rows = []
    for row in with_chosen(result, result["sweep"]):
        is_chosen = row["threshold"] == result["threshold"]
        attribute = ' class="used"' if is_chosen else ""
        rows.append(
            f"<tr{attribute}><td>{row['threshold']:.6f}</td>"
            f"<td>{percent(row['accuracy'])}</td><td>{row['average_timesteps']:.3f}</td>"
            f"<td>{'used' if is_chosen else ''}</td></tr>"
        )
    body = "\n".join(rows)
    return f"""<h2>By {decider(result)}</h2>
<details><summary>{plural(len(rows), "row")} of the {escape(result["exit"])} exit
</summary>
<table class="figures">
<thead><tr><th scope="col">{decider(result)}</th><th scope="col">accuracy</th>
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
        for heading, rows in conversion_tables([result["conversion"]])
    )


def _energy_section(result: dict[str, Any]) -> str:
    """What an image costs, and where; nothing without `--energy`."""
    if not result.get("energy"):
        return ""
    firing = [["neurons", "fire in a timestep"]]
    firing += [[layer["place"], percent(layer["rate"])] for layer in result["energy"]["rates"]]
    return f"""<h2>Energy</h2>
<p>{escape(rates(result))}. {escape(CRITICISM)}</p>
{_rows_table(energy_rows(result))}
<details><summary>Layer by layer</summary>
<div class="row">{_rows_table(layer_rows(result))}{_rows_table(firing)}</div></details>"""


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
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(fact))}</td></tr>'
        for name, fact in facts.items()
    )
    return f'<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'
