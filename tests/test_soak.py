"""benchmarks/soak.py sees what is lost, and its short forms lose nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    import soak
    import soak_runs


def lose_a_line(run):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[1:]))


def log_a_line_twice(run):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([lines[0], *lines]))


def change_a_figure(run):
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"train/loss": ', '"train/loss": 1', 1))


def lose_events(run):
    (file,) = (run / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-40])


def log_events_twice(run):
    """But for the first two, the version of the file and the start of its session."""
    (file,) = (run / "tensorboard").iterdir()
    rest = file.read_bytes()
    for _ in range(2):
        rest = rest[16 + int.from_bytes(rest[:8], "little") :]
    file.with_name("events.out.tfevents.2").write_bytes(rest)


def lose_a_checkpoint(run):
    last = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(last)


@pytest.mark.parametrize(
    "lose",
    [
        lose_a_line,
        log_a_line_twice,
        change_a_figure,
        lose_events,
        log_events_twice,
        lose_a_checkpoint,
    ],
)
def test_what_is_lost_is_seen(trained, copy_of_trained, lose):
    assert soak_runs.difference(copy_of_trained, trained) is None
    lose(copy_of_trained)
    assert soak_runs.difference(copy_of_trained, trained)


def test_one_sentence():
    def said(err):
        return soak_runs.Ended(2, "", err, 0.0)

    assert said("error: a is b: do c\n").sentence == "error: a is b: do c"
    for err in ("", "Aborted\n", "error: a\nerror: b\n", "E0000 other text\nerror: a\n"):
        assert said(err).sentence is None
    assert said("Traceback (most recent call last):\n").traceback
    assert not said("error: a\n").traceback


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in soak.KINDS if kind not in ("cost", "steps")])
def test_a_short_form_loses_nothing(kind):
    done = subprocess.run(
        [sys.executable, "benchmarks/soak.py", f"--only={kind}", "--tries=1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 0 | 0 |" in done.stdout
