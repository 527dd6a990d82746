"""What evaluate.py says and leaves: reports, and one sentence for every mistake."""

import json
import os
import shutil

import pytest

import seenn_jax
from seenn_jax.cli import evaluate
from seenn_jax.cli.flags import EVALUATE
from seenn_jax.errors import UserError
from seenn_jax.run import folder, weights
from tests.cli.conftest import ROOT, check_refused, named_after
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
    del content["checksum"]  # as one does who changes it on purpose
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


def test_data_that_have_moved(program, trained_on_imagenet, imagenet, tmp_path):
    def evaluated(workdir, *arguments):
        status, _, err = program("evaluate.py", f"--workdir={workdir}", "--exit=full", *arguments)
        assert (status, err) == (0, "")
        return json.loads((workdir / "evaluation" / "full" / "result.json").read_text())

    workdir = shutil.copytree(trained_on_imagenet, tmp_path / "run")
    before = evaluated(workdir)
    path = workdir / "run.json"
    content = json.loads(path.read_text().replace(str(imagenet), str(tmp_path / "gone")))
    del content["checksum"]
    path.write_text(json.dumps(content))
    refused = program("evaluate.py", f"--workdir={workdir}")
    check_refused(*refused, "'imagenet2012' is not prepared", str(tmp_path / "gone"))
    after = evaluated(workdir, f"--data_dir={imagenet}")
    assert after["static_accuracy"] == before["static_accuracy"]
    named = evaluated(workdir, f"--data_dir={imagenet}", "--data_name=imagenet2012:5.1.0")
    assert named["dataset"] == "imagenet2012:5.1.0"
    assert named["static_accuracy"] == before["static_accuracy"]


def test_other_data_must_fit(program, trained, tmp_path):
    named = [f"--workdir={trained}", "--exit=full"]
    check_refused(
        *program("evaluate.py", *named, "--data_name=digits_dvs"),
        "'digits_dvs' has image_shape (28, 28, 2), and the run was trained on data with (8, 8, 1)",
        "by --data_name or --data_dir",
    )
    refused = program("evaluate.py", *named, f"--data_name={tmp_path}")
    check_refused(*refused, f"--data_name={tmp_path} is a folder")


def test_the_newest_run_is_the_default(program, trained, tmp_path, monkeypatch):
    for script in ("evaluate.py", "train.py", "configs"):
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
    call = ("evaluate.py", f"--workdir={ann}", "--exit=full", f"--nir={new}")
    check_refused(*program(*call), "reset by its subtraction", "give --nir_lossy to write")
    assert not new.exists()
    status, out, err = program(*call, "--nir_lossy")
    assert (status, err) == (0, "")
    assert f"Network: {new}" in out
    assert "a reader that does not look there runs another network" in out
    assert new.is_file()


@pytest.mark.parametrize("name", ["nir", "export_weights"])
def test_the_network_is_written_by_one_process(name):
    values = dict.fromkeys(EVALUATE) | {name: "a.file", "multihost": True}
    with pytest.raises(UserError, match=rf"`{name}`=a\.file is written by one process: leave `mul"):
        evaluate._check(values)


def test_an_exit_of_a_plugin_is_known_to_a_fresh_process(process, copy_of_trained):
    path = copy_of_trained / "run.json"
    content = json.loads(path.read_text())
    content["config"]["plugins"].append("examples/own_exit.py")
    del content["checksum"]
    path.write_text(json.dumps(content))
    arguments = [f"--workdir={copy_of_trained}", "--exit=steady", "--slots=0"]
    check_refused(*process("evaluate.py", *arguments), "--slots is 0")


def test_event_data_have_no_images_to_predict(program, on_events, tmp_path):
    run = shutil.copytree(on_events[0], tmp_path / "run")
    status, out, err = program("evaluate.py", f"--workdir={run}", "--exit=full")
    assert (status, err) == (0, "")
    assert "Report: " in out
    assert "Next: " not in out


# --- Weights ---------------------------------------------------------------------------------


def test_weights_are_written_and_evaluated(program, copy_of_trained, tmp_path, monkeypatch):
    path = tmp_path / "tiny.safetensors"
    asked = ["--target_timesteps=2", f"--export_weights={path}"]
    status, out, err = program("evaluate.py", f"--workdir={copy_of_trained}", *asked)
    assert (status, err) == (0, "")
    assert f"Weights: {path}, and their card {tmp_path / 'tiny.md'}" in out
    result = copy_of_trained / "evaluation" / "confidence" / "result.json"
    result = json.loads(result.read_text())
    read = weights.read(path)
    assert read.exit() == folder.kept_exit(copy_of_trained)
    text = (tmp_path / "tiny.md").read_text()
    assert read.about["sha256"] in text
    assert f"accuracy {100 * result['accuracy']:.2f} % at {result['average_timesteps']:.3f}" in text
    # Not twice.
    refused = program("evaluate.py", f"--workdir={copy_of_trained}", *asked)
    check_refused(*refused, f"--export_weights={path} exists already")

    # What the card states is what they do, in whatever folder one is.
    for name in ("evaluate.py", "seenn_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    status, out, err = program("evaluate.py", f"--weights={path}", "--target_timesteps=2")
    assert (status, err) == (0, "")
    assert f"Evaluating {path}." in out
    report = tmp_path / "runs" / "weights" / "tiny" / "evaluation" / "confidence"
    again = json.loads((report / "result.json").read_text())
    for name in ("accuracy", "average_timesteps", "threshold", "static_accuracy", "exit_shares"):
        assert again[name] == result[name]


def test_the_exit_of_rounded_weights_is_their_own(program, copy_of_trained, tmp_path):
    path = tmp_path / "tiny.safetensors"
    asked = [f"--export_weights={path}", "--weights_dtype=int8", "--target_timesteps=2"]
    status, out, err = program("evaluate.py", f"--workdir={copy_of_trained}", *asked)
    assert (status, err) == (0, "")
    wanted = seenn_jax.evaluate(path, choice=seenn_jax.Target(2))
    assert weights.read(path).exit() == {name: wanted[name] for name in folder.KEPT}
    words = f"accuracy {100 * wanted['accuracy']:.2f} % at {wanted['average_timesteps']:.3f}"
    assert f"With kernels in int8: {words}" in out
    assert words in (tmp_path / "tiny.md").read_text()
    # The run's own is that of its own weights.
    assert folder.kept_exit(copy_of_trained)["threshold"] != wanted["threshold"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--weights=digits"], ["unknown weights 'digits'", "known ones are"]),
        (["--weights=no.safetensors"], ["no.safetensors can't be read"]),
        (["--weights=a", "--workdir=b"], ["--weights=a and --workdir=b name two networks"]),
        (["--nir_lossy"], ["--nir_lossy goes with --nir: give that too"]),
        (["--weights_dtype=int8"], ["--weights_dtype=int8 goes with --export_weights"]),
        (
            ["--export_weights=new.safetensors", "--weights_dtype=int4"],
            ["unknown --weights_dtype 'int4'"],
        ),
        (["--export_weights=new.npz"], ["--export_weights=new.npz must end in .safetensors"]),
        (["--export_weights=no/new.safetensors"], ["there is no folder no"]),
        (["--ann", "--export_weights=new.safetensors"], ["leave one of them out"]),
    ],
    ids=named_after,
)
def test_weights_that_cannot_be(program, arguments, named):
    check_refused(*program("evaluate.py", *arguments), *named)
