"""Scalars are there twice, in both files alike, and once each after a resume."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from seenn_jax.run import folder
from seenn_jax.training.logs import ScalarLog, is_trained, progress_bar


@pytest.fixture
def jsonl(tmp_path):
    return lambda: folder.metrics(tmp_path)


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


def test_all_that_was_written_is_there_when_the_process_is_killed(tmp_path, read_events):
    """The log is not closed, as in a killed process."""
    log = ScalarLog(tmp_path, 0)
    for step in range(1, 41):
        log.write(step, {"loss": 1.0 / step})
    copy = Path(shutil.copytree(tmp_path / "tensorboard", tmp_path / "copy"))
    assert read_events(copy).keys() == {(step, "loss") for step in range(1, 41)}
    log.__exit__()


def test_damaged_lines_are_kept_aside_and_the_others_stay(tmp_path, caplog):
    with ScalarLog(tmp_path, 0) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": 1.0 * step, "epoch": step // 10})
    path = tmp_path / "metrics.jsonl"
    before = path.read_bytes()
    damaged = before.replace(b'"loss": 20.0', b'"loss": 21.0')
    path.write_bytes(damaged)
    with ScalarLog(tmp_path, 30):
        pass
    assert path.read_bytes().splitlines() == [before.splitlines()[i] for i in (0, 2)]
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == damaged
    assert "1 damaged line(s)" in caplog.text
    assert [line["step"] for line in folder.metrics(tmp_path)] == [10, 30]


DAMAGED_LINES = [
    b'{"step": 20, "loss": 3.0}',  # of an older run, which has no checksum: taken as it is
    b'{"step": 20, "loss": 2.0, "epoch": 2, "checksum": "00000000"}',
    b'{"step": 20, "loss": 2.0, "chocksum": "3c7d2a19"}',
    b'{"step": -1, "loss": 2.0}',
    b'{"step": 20.5}',
    b'{"loss": 2.0}',
    b"[20, 2.0]",
    b"20",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"step": 20, "loss": "high"}',
    b'{"step": 20, "loss": NaN}',
]


@pytest.mark.parametrize("line", DAMAGED_LINES, ids=lambda line: str(line[:40]))
def test_a_line_that_can_t_be_is_left_out(tmp_path, caplog, line):
    good = b'{"step": 10, "loss": 1.0, "epoch": 1}'
    (tmp_path / "metrics.jsonl").write_bytes(good + b"\n" + line + b"\n")
    of_an_older_run = line == DAMAGED_LINES[0]
    found = folder.metrics(tmp_path)
    assert [each["step"] for each in found] == [10, 20][: 1 + of_an_older_run]
    assert ("1 damaged line(s)" in caplog.text) != of_an_older_run


def test_a_lost_line_is_said(tmp_path, caplog):
    lines = [f'{{"step": {9 * epoch}, "epoch": {epoch}}}\n' for epoch in (1, 3)]
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    folder.metrics(tmp_path)
    assert "metrics.jsonl lacks the line of epoch 2, 4\n" in caplog.text


@pytest.mark.parametrize(("step", "lines"), [(5, 0), (9, 0), (14, 1), (18, 1)])
def test_a_line_that_was_not_written_yet_is_not_lost(tmp_path, caplog, step, lines):
    """What was saved within an epoch, or while that was validated, has no score."""
    (tmp_path / "checkpoints" / str(step) / "metrics").mkdir(parents=True)
    score = tmp_path / "checkpoints" / str(step) / "metrics" / "metrics"
    score.write_text('{"score": -Infinity}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 9, "epoch": 1}\n' * lines)
    folder.metrics(tmp_path)
    assert not caplog.text
    score.write_text('{"score": 0.5}')
    folder.metrics(tmp_path)
    assert bool(caplog.text) == (step != 14)


def test_a_run_without_its_last_checkpoint_is_not_done(copy_of_trained):
    assert is_trained(copy_of_trained)
    path = copy_of_trained / "metrics.jsonl"
    lines = path.read_bytes()
    for damaged in (b"", b"[]\n", lines[:-30], b"\xff\n", lines + b'{"step": 120}\n'):
        path.write_bytes(damaged)
        assert not is_trained(copy_of_trained)
    path.write_bytes(lines)
    last = copy_of_trained / "checkpoints" / "120"
    (last / "metrics" / "metrics").write_text('{"score": 0.5}')  # of an older run: no checksum
    assert is_trained(copy_of_trained)
    (last / "metrics" / "metrics").unlink()
    assert not is_trained(copy_of_trained)
