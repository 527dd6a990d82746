"""A result on the console."""

from typing import Any

from rich import box
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from seenn_jax.energy import CRITICISM
from seenn_jax.memory import MODEL
from seenn_jax.report.words import (
    beside,
    choice,
    conversion_tables,
    decider,
    energy_rows,
    guarantee_rows,
    headline,
    in_figures,
    memory_rows,
    origin,
    percent,
    rates,
    subject,
    thin,
    timestep_rows,
    with_chosen,
)


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print `result` (see the module's docstring) concisely; 80 columns are enough."""
    console.print()
    console.print(Text(headline(result), style="bold"))
    console.print(Text(subject(result)))
    console.print(Text(origin(result), style="dim"))
    if result["dataset_note"]:
        console.print(Text(result["dataset_note"], style="dim"))

    by_timestep = _table("timestep", "static accuracy", "share of exits", "")
    for t, accuracy, share in timestep_rows(result):
        bar = ProgressBar(total=1.0, completed=share, width=24)
        by_timestep.add_row(str(t), percent(accuracy), percent(share), bar)
    console.print(by_timestep)

    console.print(Text(f"{in_figures(result)} (T = {result['timesteps']})"))
    console.print(choice(result), markup=False, highlight=False)
    if result["policy"]:
        console.print(beside(result), markup=False, highlight=False)
    if result["guarantee"]:
        guarantee = _table("guarantee", "")
        for name, value in guarantee_rows(result):
            guarantee.add_row(name, value)
        console.print(guarantee)
    if result["sweep"]:
        sweep = _table(decider(result), "accuracy", "average timesteps", "")
        for row in with_chosen(result, thin(result["sweep"])):
            is_chosen = row["threshold"] == result["threshold"]
            sweep.add_row(
                f"{row['threshold']:.6f}",
                percent(row["accuracy"]),
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
        for (header, *rows), said in (
            (energy_rows(result), f"{rates(result)}. {CRITICISM}"),
            (memory_rows(result), MODEL),
        ):
            bills = _table(*header)
            for t, row in enumerate(rows):
                # By timestep, 1, 2, 4 ... and T are enough here.
                if t & (t - 1) == 0 or t >= result["timesteps"]:
                    bills.add_row(*row)
            console.print(bills)
            console.print(said, highlight=False)
    if result["images_per_second"] is not None:
        console.print(f"{result['images_per_second']:,.0f} images/s", highlight=False)


def print_conversions(reports: list[dict[str, Any]], console: Console) -> None:
    """Print reports of `evaluation.conversion_report`: accuracy of all, and the layers of one."""
    for heading, rows in conversion_tables(reports):
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
