"""What training says: a progress bar, scalars in JSON lines and in TensorBoard's event files."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from seenn_jax.paths import put
from seenn_jax.run import checkpoints, folder, records


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

    What is written is in the files when `write` returns: a killed process loses none of it.

    Args:
      workdir: the run.
      step: where the run continues: what an interrupted one had logged after it is dropped, since
        it is computed again.
      rewinds: how often the run went back; a part of the names of the event files.
    """

    def __init__(self, workdir: Path, step: int, rewinds: int = 0):
        path, events = workdir / folder.METRICS_FILE, workdir / "tensorboard"
        kept, damaged = records.scalars_in(path)
        if damaged:  # as it is, to be looked at
            put(path.with_suffix(".damaged.jsonl"), path.read_bytes())
        if path.is_file():
            put(path, b"".join(line + b"\n" for line, what in kept if what["step"] <= step))
        events.mkdir(exist_ok=True)
        self.lines = path.open("a")
        # Names end with the second in which they are made: a quick restart must not overwrite.
        self.events = EventsWriter(
            str(events / "events"), f".from-{step}" + f"-{rewinds}" * bool(rewinds)
        )
        # TensorBoard drops what earlier files have from this step on.
        self._add(step + 1, session_log=SessionLog(status=SessionLog.START))
        self.events.flush()

    def write(self, step: int, scalars: records.Scalars) -> None:
        """Append `scalars`, whose names may be grouped as "validation/accuracy"."""
        self.lines.write(records.line(step, scalars))
        self.lines.flush()
        for name, value in scalars.items():
            self._add(step, summary=scalar(name, value))
        self.events.flush()

    def _add(self, step: int, **what: Any) -> None:
        self.events.write_event(Event(step=step, wall_time=time.time(), **what))

    def __enter__(self) -> "ScalarLog":
        return self

    def __exit__(self, *_) -> None:
        self.lines.close()
        self.events.close()


def is_trained(workdir: Path) -> bool:
    """Whether the run has come to the end of its last epoch, and has the whole checkpoint of it."""
    if not folder.has_checkpoint(workdir):
        return False
    config, _ = folder.load(workdir)
    logged = folder.metrics(workdir)
    if not logged or logged[-1].get("epoch") != config.epochs:
        return False
    return checkpoints.is_whole(workdir, int(logged[-1]["step"]))
