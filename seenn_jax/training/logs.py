"""What training says: a progress bar, scalars in JSON lines and in TensorBoard's event files."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from seenn_jax.paths import put
from seenn_jax.run import folder


def progress_bar(console: Console) -> Progress:
    """A bar whose unit is one image at one timestep; tasks have the field `status`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        # Without a terminal the bar would be a single line at the end; validations print lines.
        disable=not console.is_terminal,
    )


class ScalarLog:
    """Scalars by step, appended to `metrics.jsonl` and to event files in `tensorboard/`.

    Args:
      workdir: the run.
      step: where the run continues: what an interrupted one had logged after it is dropped, since
        it is computed again.
    """

    def __init__(self, workdir: Path, step: int):
        path = workdir / folder.METRICS_FILE
        if path.is_file():
            lines = path.read_text().splitlines()
            put(path, "".join(f"{x}\n" for x in lines if _step_of(x) <= step).encode())
        self.lines = path.open("a")
        self.events = SummaryWriter(
            str(workdir / "tensorboard"),
            purge_step=step + 1,
            flush_secs=10,
            # Names end with the second in which they are made: a quick restart must not overwrite.
            filename_suffix=f".from-{step}",
        )

    def write(self, step: int, scalars: dict[str, float | int]) -> None:
        """Append `scalars`, whose names may be grouped as "validation/accuracy"."""
        self.lines.write(json.dumps({"step": step, **scalars}) + "\n")
        self.lines.flush()
        for name, value in scalars.items():
            self.events.add_scalar(name, value, step)

    def __enter__(self) -> "ScalarLog":
        return self

    def __exit__(self, *_) -> None:
        self.lines.close()
        self.events.close()


def is_trained(workdir: Path) -> bool:
    """Whether the run has come to the end of its last epoch, and has the checkpoint of it."""
    if not (folder.has_checkpoint(workdir) and (workdir / folder.METRICS_FILE).is_file()):
        return False
    config, _ = folder.load(workdir)
    last = (workdir / folder.METRICS_FILE).read_text().splitlines()[-1:]
    try:
        reached = json.loads(*last)
    except (TypeError, ValueError):  # empty, or unfinished
        return False
    done = workdir / folder.CHECKPOINTS / str(reached["step"])
    return reached["epoch"] == config.epochs and done.is_dir()


def _step_of(line: str) -> float | int:
    """The step of a line of `metrics.jsonl`; infinity if a killed process left it unfinished."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")
