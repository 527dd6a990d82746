"""Scalars are there twice, in both files alike, and once each after a resume."""

import io
import json

import pytest
from rich.console import Console

from seenn_jax.training.logs import ScalarLog, progress_bar


@pytest.fixture
def jsonl(tmp_path):
    return lambda: [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_both_files_hold_every_scalar(tmp_path, jsonl, read_events):
    with ScalarLog(tmp_path, 0) as log:
        log.write(10, {"train/loss": 0.5, "epoch": 1})
        # It can be watched while it is being written.
        assert len(jsonl()) == 1
        log.write(20, {"train/loss": 0.25, "epoch": 2, "validation/accuracy_1": 0.75})
    assert jsonl() == [
        {"step": 10, "train/loss": 0.5, "epoch": 1},
        {"step": 20, "train/loss": 0.25, "epoch": 2, "validation/accuracy_1": 0.75},
    ]
    assert read_events(tmp_path / "tensorboard") == {
        (10, "train/loss"): [0.5],
        (10, "epoch"): [1],
        (20, "train/loss"): [0.25],
        (20, "epoch"): [2],
        (20, "validation/accuracy_1"): [0.75],
    }


def test_what_was_logged_after_the_checkpoint_is_dropped(tmp_path, jsonl, read_events):
    with ScalarLog(tmp_path, 0) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": 1.0 * step})
    # Within the same second, which event files' names tell apart no further.
    with ScalarLog(tmp_path, 10) as log:
        log.write(20, {"loss": 2.0})
    assert jsonl() == [{"step": 10, "loss": 10.0}, {"step": 20, "loss": 2.0}]
    shown = read_events(tmp_path / "tensorboard")
    assert shown == {(10, "loss"): [10.0], (20, "loss"): [2.0]}


def test_a_line_that_a_killed_process_left_unfinished_does_no_harm(tmp_path, jsonl):
    with ScalarLog(tmp_path, 0) as log:
        log.write(10, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')
    with ScalarLog(tmp_path, 10) as log:
        log.write(20, {"loss": 2.0})
    assert jsonl() == [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 2.0}]


def test_the_bar_is_for_terminals():
    texts = {}
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        with progress_bar(console) as bar:
            bar.add_task("epoch 3/9", total=10, completed=5, status="loss 0.123")
        texts[terminal] = out.getvalue()
    assert "epoch 3/9" in texts[True]
    assert "loss 0.123" in texts[True]
    assert "left" in texts[True]
    assert texts[False].strip() == ""
