"""What `python -m seenn_jax predict` says and leaves, and one sentence for every mistake."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seenn_jax
from seenn_jax.cli import predict
from seenn_jax.data import digits
from seenn_jax.run import folder
from tests.cli.conftest import check_refused

MODULE = "seenn_jax/__main__.py"
KEPT = {
    "exit": "confidence",
    "threshold": 0.25,
    "threshold_rule": "as given",
    "temperatures": None,
    "timesteps": 3,
}


@pytest.fixture
def run(copy_of_trained):
    """A run that was evaluated."""
    folder.keep_exit(copy_of_trained, KEPT)
    return copy_of_trained


@pytest.fixture
def pngs(tmp_path):
    """A folder with 12 digits."""
    below = tmp_path / "pngs"
    below.mkdir()
    for number, image in enumerate(digits.still()[1].images[:12]):
        Image.fromarray(image[..., 0]).save(below / f"{number:02}.png")
    return below


@pytest.fixture
def call(program, run):
    """`(*arguments) -> (exit status, stdout, stderr)` of predict on `run`."""
    return lambda *arguments: program(MODULE, "predict", f"--workdir={run}", *arguments)


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_table_and_lines_of_json(call, run, pngs, tmp_path):
    path = tmp_path / "found.jsonl"
    status, out, err = call(pngs, f"--json={path}")
    assert (status, err) == (0, "")
    wanted = seenn_jax.load(run).predict(pngs)
    rows = rows_of(path.read_text())
    assert [row["file"] for row in rows] == [str(pngs / f"{n:02}.png") for n in range(12)]
    assert [row["class_number"] for row in rows] == wanted.classes.tolist()
    assert [row["class"] for row in rows] == list(wanted.names)
    assert [row["timesteps"] for row in rows] == wanted.timesteps.tolist()
    assert [row["confidence"] for row in rows] == pytest.approx(wanted.confidence, abs=1e-6)
    for name in ("file", "class", "confidence", "timesteps"):
        assert name in out
    average = wanted.timesteps.mean()
    assert 1 < average < 3
    assert f"12 images; {average:.3f} timesteps on average; " in out
    assert "images/s, reading included" in out
    assert "confidence exit, threshold 0.25 (T = 3), as given" in out
    # What is there stays.
    check_refused(*call(pngs, f"--json={path}"), f"--json={path} exists already")


def test_names_of_files_are_shown_as_they_are(call, pngs, tmp_path):
    odd = [str(tmp_path / os.fsdecode(name)) for name in (b"[red] :smile:.png", b"\xff.png")]
    for name in odd:
        shutil.copy(pngs / "03.png", name)
    path = tmp_path / "found.jsonl"
    status, out, err = call(*odd, f"--json={path}")
    assert (status, err) == (0, "")
    assert [row["file"] for row in rows_of(path.read_text())] == odd
    found = re.sub(r"\s", "", out)  # long names go over several lines
    assert "[red]:smile:.png" in found
    assert r"\udcff.png" in found
    assert [row["file"] for row in rows_of(call(*odd, "--json=-")[1])] == odd


def test_json_on_standard_output_is_alone_there(call, pngs, tmp_path):
    status, out, err = call(pngs / "03.png", "--json=-", pngs / "01.png")
    assert status == 0
    assert [Path(row["file"]).name for row in rows_of(out)] == ["03.png", "01.png"]
    assert "2 images; " in err


def test_the_flags_of_another_exit(call, run, pngs):
    run_ = seenn_jax.load(run, timesteps=2)
    for arguments, exit, choice in (
        (["--exit=full"], "full", None),
        (["--exit=patience", "--threshold=2"], "patience", seenn_jax.Given(2)),
        (["--threshold=0.2", "--exit=margin"], "margin", seenn_jax.Given(0.2)),
    ):
        status, out, _ = call(pngs, "--json=-", "--timesteps=2", "--slots=3", *arguments)
        wanted = run_.predict(pngs, exit=exit, choice=choice)
        assert status == 0
        assert [row["timesteps"] for row in rows_of(out)] == wanted.timesteps.tolist()
    # The run's own exit by another threshold.
    status, out, err = call(pngs, "--json=-", "--threshold=1")
    assert [row["timesteps"] for row in rows_of(out)] == [3] * 12
    assert "confidence exit, threshold 1 (T = 3)" in err


def test_what_cannot_be_read_is_named_and_counted(call, pngs):
    (pngs / "02.png").write_text("no image")
    (pngs / "05.png").write_bytes((pngs / "05.png").read_bytes()[:50])
    status, out, err = call(pngs)
    assert status == 0
    assert "10 images, 2 could not be read; " in out
    assert err.count("left out: image ") == err.count("\n") == 2
    assert str(pngs / "02.png") in err
    status, out, err = call(pngs / "02.png", "--json=-")
    assert (status, out) == (2, "")
    assert "error: none of the files (1) can be read" in err
    assert "Traceback" not in err


def test_a_long_table_is_cut(call, pngs, monkeypatch):
    monkeypatch.setattr(predict, "SHOWN", 3)
    _, out, _ = call(pngs)
    assert sum(".png" in line for line in out.splitlines()) == 3
    assert "... and 9 more; --json=PATH writes a line for each." in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ["there is nothing to predict: give image files, or folders of them"]),
        (["no/such.png"], ["no/such.png is no file and no folder"]),
        (["docs", "--json=no/such/x"], ["--json=no/such/x: there is no folder no/such"]),
        (["docs", "--json=/proc/x"], ["--json=/proc/x can't be written"]),
        (["configs"], ["the folder configs has no image"]),
        (["docs", "--slots=0"], ["--slots is 0", "at least 1"]),
        (["docs", "--timesteps=0"], ["--timesteps is 0", "at least 1"]),
        (["docs", "--timesteps=2"], ["--timesteps is 2 and the exit of", "chosen for 3"]),
        (["docs", "--exit=sure"], ["unknown exit 'sure'"]),
        (["docs", "--exit=policy"], ["exit 'policy' needs a run with a policy"]),
        (["docs", "--threshold=1.5"], ["threshold 1.5 is outside"]),
        (["docs", "--precision=int4"], ["unknown precision 'int4'"]),
        (["docs", "--data_dir=x"], ["--data_dir=x is of the data that", "or ask for one by --tol"]),
        (["docs", "--delta=0.5"], ["--delta=0.5 goes with --risk"]),
        (["docs", "--split=test"], ["unknown flag 'split'"]),
    ],
    ids=lambda value: " ".join(value[:2]) if value and value[0] in ("docs", "configs") else "",
)
def test_a_mistake_is_one_sentence(call, run, contents, arguments, named):
    before = contents(run)
    check_refused(*call(*arguments), *named)
    assert contents(run) == before


def test_weights_predict_as_their_run(program, call, run, pngs, tmp_path):
    path = tmp_path / "tiny.safetensors"
    seenn_jax.export_weights(path, seenn_jax.load(run))
    _, wanted, _ = call(pngs, "--json=-")
    status, out, _ = program(MODULE, "predict", f"--weights={path}", pngs, "--json=-")
    assert (status, out) == (0, wanted)
    refused = call(pngs, f"--weights={path}")
    check_refused(*refused, f"--weights={path} and --workdir={run} name two networks")
    refused = program(MODULE, "predict", "--weights=no-such-net", pngs)
    check_refused(*refused, "unknown weights 'no-such-net'")


def test_a_run_that_was_not_evaluated(program, copy_of_trained, pngs):
    refused = program(MODULE, "predict", f"--workdir={copy_of_trained}", pngs)
    check_refused(*refused, "has not been evaluated yet", "say which --exit")


def test_names_are_no_commands_to_a_terminal():
    found = seenn_jax.Predictions(
        np.array([1]), np.array([0.5], np.float32), np.array([2]), ("a\x1b[2J",), ("b\x9b2J",)
    )
    (line,) = predict.lines(found)
    assert line.isprintable()
    assert (json.loads(line)["class"], json.loads(line)["file"]) == ("a\x1b[2J", "b\x9b2J")


def test_names_beyond_ascii():
    found = seenn_jax.Predictions(
        np.array([1]), np.array([0.5], np.float32), np.array([2]), ("Kätzchen",), ("ü.png",)
    )
    (line,) = predict.lines(found)
    assert line == (
        '{"file": "ü.png", "class": "Kätzchen", "class_number": 1, "confidence": 0.5, '
        '"timesteps": 2}'
    )
