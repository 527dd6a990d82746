"""Accuracy against epochs, of training images and those held out.

    python benchmarks/learning_curves.py runs/cifar10 runs/cifar100 --picture=curves.png
    python benchmarks/learning_curves.py runs/cifar10 --csv=results/learning

A curve is a run's folder, or what --csv has written of one: NAME.csv, with a row for each epoch.
"""

import argparse
import json
import sys
from pathlib import Path

import records
from matplotlib.figure import Figure

from seenn_jax.errors import UserError
from seenn_jax.report.colours import LIGHT
from seenn_jax.report.pictures import rendered

VALIDATION = "validation/accuracy_"
KEPT = ("epoch", "train/timesteps", "train/loss", "train/accuracy")
COLORS = [LIGHT[name] for name in ("exits", "static", "oracle", "chosen", "muted")]


def rows_of(path: Path) -> list[dict]:
    """The epochs of a run's folder or of a CSV file.

    Raises:
      UserError: there are none.
    """
    try:
        if path.suffix == ".csv":
            return records.load_rows(path)
        lines = (path / "metrics.jsonl").read_text().splitlines()
    except OSError as error:
        raise UserError(
            f"{path} is neither a run with metrics.jsonl nor a CSV file of one ({error.strerror}): "
            "give one"
        ) from error
    found = [json.loads(line) for line in lines]
    held_out = {name for row in found for name in row if name.startswith(VALIDATION)}
    names = (*KEPT, *sorted(held_out, key=lambda name: int(name.removeprefix(VALIDATION))))
    return [{name: row.get(name, "") for name in names} for row in found if "epoch" in row]


def points(rows: list[dict], name: str) -> tuple[list[float], list[float]]:
    """Epochs, and what was measured after them, in percent."""
    known = [row for row in rows if row.get(name) not in ("", None)]
    return [float(row["epoch"]) for row in known], [100 * float(row[name]) for row in known]


def draw(runs: dict[str, list[dict]], path: Path) -> None:
    """A panel for each run, three beside each other."""
    columns = min(3, len(runs))
    lines = -(-len(runs) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(runs) :]:
        axes.set_visible(False)
    for axes, (title, rows) in zip(panels.flat, runs.items(), strict=False):
        held_out = [name for name in rows[0] if name.startswith(VALIDATION)]
        shown = {"training images, augmented": "train/accuracy"}
        for name in dict.fromkeys((held_out[0], held_out[-1])):
            shown[f"held out, t = {name.removeprefix(VALIDATION)}"] = name
        for color, (label, name) in zip(COLORS, shown.items(), strict=False):
            axes.plot(*points(rows, name), color=color, label=label, linewidth=1.4)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.legend(loc="lower right", frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=40)
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy in percent")
    path.write_bytes(rendered(figure, format="png", dpi=130))


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or CSV files of them")
    parser.add_argument("--csv", type=Path, help="write NAME.csv of each into this folder")
    parser.add_argument("--picture", type=Path, help="draw them into this PNG")
    asked = parser.parse_args()
    runs = {path.stem: rows_of(path) for path in asked.runs}
    for name, rows in runs.items() if asked.csv else ():
        records.write_rows(asked.csv / f"{name}.csv", rows)
    if asked.picture:
        draw(runs, asked.picture)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"learning_curves.py: {error}")
