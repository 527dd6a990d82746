"""What evaluate.py says and leaves: reports, and one sentence for every mistake."""

import json
import os
import shutil

import pytest

from seenn_jax.cli import evaluate
from seenn_jax.errors import UserError
from seenn_jax.run import folder
from tests.cli.conftest import ROOT, check_refused
from tests.run.untrained import untrained


@pytest.fixture(scope="module")
def ann(trained, make_config, tmp_path_factory):
    """A run of an ordinary network with QCFS activations."""
    config = make_config(activation="qcfs", loss="mean_ce", inherit_epochs=0)
    workdir = tmp_path_factory.mktemp("runs") / "ann"
    return untrained(workdir, config, folder.load(trained)[1])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--exit=sure"], ["unknown exit 'sure'", "confidence, entropy, full, margin, patience"]),
        (["--threshold=1.5"], ["threshold 1.5", "[0, 1]"]),
        (["--threshold=nan"], ["threshold nan", "[0, 1]"]),
        (["--threshold=0.5", "--exit=full"], ["--threshold=0.5", "leave it out"]),
        (["--split=dev"], ["unknown split 'dev'", "test, train, validation"]),
        (["--slots=361"], ["--slots is 361", "360 images", "from 1 to that"]),
        (["--slots=0"], ["--slots is 0", "from 1 to that"]),
        (["--json=README.md"], ["--json=README.md exists already", "new file"]),
        (["--json=no/such/folder.json"], ["--json=no/such/folder.json", "no folder no/such"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else "",
)
def test_what_cannot_be_evaluated(program, trained, contents, arguments, named):
    before = contents(trained)
    check_refused(*program("evaluate.py", f"--workdir={trained}", *arguments), *named)
    assert contents(trained) == before


def test_a_workdir_that_cannot_be_evaluated(program, copy_of_trained, contents):
    path = copy_of_trained / "run.json"
    original = path.read_text()
    content = json.loads(original)
    content["config"]["model"]["width"] = 6
    path.write_text(json.dumps(content))
    before = contents(copy_of_trained)
    refused = program("evaluate.py", f"--workdir={copy_of_trained}")
    check_refused(*refused, "of another architecture", "average.0.blocks.0.conv1.bn.bias is (6,)")
    assert contents(copy_of_trained) == before

    path.write_text(original)
    shutil.rmtree(copy_of_trained / "checkpoints")
    refused = program("evaluate.py", f"--workdir={copy_of_trained}")
    check_refused(*refused, "has no checkpoint yet", f"train.py --workdir={copy_of_trained}")
    path.unlink()
    refused = program("evaluate.py", f"--workdir={copy_of_trained}")
    check_refused(*refused, f"{copy_of_trained} holds no run")


def test_the_newest_run_is_the_default(program, trained, tmp_path, monkeypatch):
    for script in ("evaluate.py", "configs"):
        (tmp_path / script).symlink_to(ROOT / script)
    monkeypatch.chdir(tmp_path)
    check_refused(*program("evaluate.py"), "there is no run in runs/", "train.py --config=")
    for age, name in enumerate(("new", "old")):
        copy = shutil.copytree(trained, tmp_path / "runs" / name)
        os.utime(copy / "checkpoints", (0, 1000 - age))
    status, out, err = program("evaluate.py", "--exit=nothing")
    assert out == "Evaluating runs/new.\n"
    check_refused(status, out, err, "unknown exit 'nothing'")


def test_several_runs_are_compared(program, ann, tmp_path):
    both = f"--workdir={ann},{ann}"
    check_refused(*program("evaluate.py", both), "names 2 runs, and one is evaluated at a time")
    copy = tmp_path / "both.json"
    status, out, err = program("evaluate.py", both, "--conversion_report", f"--json={copy}")
    assert (status, err) == (0, "")
    report = json.loads((ann / "evaluation" / "conversion.json").read_text())
    assert json.loads(copy.read_text()) == [report, report]
    assert out.count(f"{100 * report['ann_accuracy']:.2f}") >= 2
    assert not (ann / "evaluation" / "confidence").exists()


def test_the_ann_is_no_exit_of_the_run(program, ann):
    status, out, err = program("evaluate.py", f"--workdir={ann}", "--ann", "--exit=full")
    assert (status, err) == (0, "")
    assert "the ANN itself" in out
    assert (ann / "evaluation" / "ann" / "report.html").is_file()
    assert folder.kept_exit(ann) is None


def test_the_network_is_written_to_a_new_file(program, trained, ann, tmp_path):
    path = tmp_path / "ann.nir"
    path.write_text("mine")
    refused = program("evaluate.py", f"--workdir={trained}", f"--nir={path}")
    check_refused(*refused, "ann.nir exists already")
    assert path.read_text() == "mine"
    new = tmp_path / "new.nir"
    refused = program("evaluate.py", f"--workdir={ann}", "--ann", f"--nir={new}")
    check_refused(
        *refused,
        f"--nir={new} is for a spiking network, and --ann is for the ordinary one that it was "
        "converted from",
    )
    assert not new.exists()
    status, out, err = program("evaluate.py", f"--workdir={ann}", "--exit=full", f"--nir={new}")
    assert (status, err) == (0, "")
    assert f"Network: {new}" in out
    assert new.is_file()


def test_the_network_is_written_by_one_process():
    values = {"ann": False, "nir": "a.nir", "multihost": True}
    with pytest.raises(UserError, match=r"`nir`=a\.nir is written by one process: leave `multi"):
        evaluate._check(values)
