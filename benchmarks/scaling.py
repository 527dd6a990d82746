"""Time and memory of a training step against timesteps and images, with the ways to save memory.

    python benchmarks/scaling.py --json=results/scaling.json --picture=docs/scaling.png
    python benchmarks/scaling.py --flags="--model=resnet19 --width=128 --image_size=32"

Each point is a process of its own, of benchmarks/train_step.py on noise. Memory is what the
compiled step takes, as the compiler knows it: parameters, optimiser, images and all in between.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import records
from matplotlib.figure import Figure

from seenn_jax.errors import UserError
from seenn_jax.report.colours import LIGHT
from seenn_jax.report.pictures import rendered

FLAGS = "--model=resnet8 --width=16 --image_size=16 --dtype=float32 --steps=4"
WAYS = {"as it is": [], "remat": ["--remat"], "gradient=last": ["--gradient=last"]}
COLORS = [LIGHT[name] for name in ("exits", "chosen", "oracle")]


def measured(flags, timesteps, batches, way):
    """A row for each batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        asked = [f"--timesteps={timesteps}", f"--batch_size={batches}", f"--json={path}"]
        script = Path(__file__).with_name("train_step.py")
        done = subprocess.run(
            [sys.executable, script, *flags, *asked, *WAYS[way]], capture_output=True, text=True
        )
        if done.returncode:
            raise UserError(f"{script.name} has failed: {done.stderr.strip().splitlines()[-1]}")
        found = [record["figures"] for record in records.load(path)]
    rows = [
        {
            "way": way,
            **{name: each[name] for name in ("timesteps", "batch_size")},
            "milliseconds": 1e3 * each["batch_size"] / each["images_per_second"],
            "mebibytes": 1024 * each["memory_gib"],
        }
        for each in found
    ]
    for row in rows:
        print(" ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return rows


def draw(by_timesteps, by_batch, path):
    """Time against T and against images, and memory against T."""
    figure = Figure(figsize=(10.2, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for color, way in zip(COLORS, WAYS, strict=True):
        rows = [row for row in by_timesteps if row["way"] == way]
        x = [row["timesteps"] for row in rows]
        for axes, name in zip(panels, ("milliseconds", "mebibytes"), strict=False):
            axes.plot(x, [row[name] for row in rows], marker="o", color=color, label=way)
    rows = [(row["batch_size"], row["milliseconds"]) for row in by_batch]
    panels[2].plot(*zip(*rows, strict=True), marker="o", color=COLORS[0])
    words = (("timesteps", "ms a step"), ("timesteps", "MiB"), ("images a step", "ms a step"))
    for axes, (x, y) in zip(panels, words, strict=True):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=9)
    Path(path).write_bytes(rendered(figure, format="png", dpi=130))


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flags", default=FLAGS, help="of train_step.py, of every point")
    parser.add_argument("--timesteps", default="1,2,4,8,16", help="to be measured, with commas")
    parser.add_argument("--images", default="16,32,64,128", help="in a step, at --at_timesteps")
    parser.add_argument("--at_images", type=int, default=32, help="of the points over timesteps")
    parser.add_argument("--at_timesteps", type=int, default=4, help="of the points over images")
    parser.add_argument("--json", help="add the record to this file")
    parser.add_argument("--picture", help="draw them into this PNG")
    asked = parser.parse_args()
    flags, numbers = asked.flags.split(), [int(t) for t in asked.timesteps.split(",")]
    points = ((t, way) for way in WAYS for t in numbers)
    by_timesteps = [row for t, way in points for row in measured(flags, t, asked.at_images, way)]
    by_batch = measured(flags, asked.at_timesteps, asked.images, "as it is")
    if asked.picture:
        draw(by_timesteps, by_batch, asked.picture)
    if asked.json:
        figures = {"flags": asked.flags, "by_timesteps": by_timesteps, "by_images": by_batch}
        records.add(asked.json, records.record("Time and memory of a training step", figures))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"scaling.py: {error}")
