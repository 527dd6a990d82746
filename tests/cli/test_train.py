"""What train.py says and leaves: runs, and one sentence for every mistake."""

import json

import pytest

from seenn_jax.run import folder
from tests.cli.conftest import DIGITS, check_refused, flags_of, named_after


def test_train_then_evaluate(process, trained, make_config, tmp_path):
    arguments = [DIGITS, f"--workdir={tmp_path}", *flags_of(make_config())]
    status, out, err = process("train.py", *arguments)
    # Not a word of orbax's or of backends that are not there.
    assert (status, err) == (0, "")
    assert "Training one_block (width 16) on digits: 1,287 images, 150 held out" in out
    assert "Compiling the training step for 1 timestep(s)" in out
    assert "epoch   6/6  loss" in out
    assert f"the run is in {tmp_path}." in out
    # Another process, the same bits.
    lines = (folder.metrics(path)[-1] for path in (trained, tmp_path))
    mine, other = ({**line, "train/images_per_second": 0} for line in lines)
    assert mine == other

    copy = tmp_path / "copy.json"
    status, out, err = process("evaluate.py", f"--workdir={tmp_path}", f"--json={copy}")
    assert (status, err) == (0, "")
    assert f"Evaluating {tmp_path}." in out
    assert out.endswith(
        f"\nNext: python -m seenn_jax predict --workdir={tmp_path} FILE_OR_FOLDER\n"
    )
    assert "digits, test split, 360 samples" in out
    report = tmp_path / "evaluation" / "confidence"
    assert f"Report: {report / 'report.html'}" in out
    result = json.loads((report / "result.json").read_text())
    assert json.loads(copy.read_text()) == result
    assert result["exit"] == "confidence"
    accuracy, average = 100 * result["accuracy"], result["average_timesteps"]
    assert f"accuracy {accuracy:.2f} % at {average:.3f} timesteps on average (T = 3)" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([DIGITS, "--config.model.name=resnet9"], ["'resnet9'", "vgg16", "resnet8"]),
        ([DIGITS, "--config.model.dtype=float16"], ["'float16'", "bfloat16, float32"]),
        ([DIGITS, "--config.timesteps=0"], ["--config.timesteps is 0", "at least 1"]),
        ([DIGITS, "--config.batch_size=5000"], ["--config.batch_size is 5000", "training images"]),
        ([DIGITS, "--config.data.validation=0"], ["--config.data.validation is 0"]),
        ([DIGITS, "--config.data.name=no name"], ["'no name' is not the name of a data set"]),
    ],
    ids=named_after,
)
def test_what_cannot_be_trained(refused_training, arguments, named):
    refused_training(arguments, named)


def test_an_unknown_data_set(program, tmp_path, monkeypatch):
    for variable in ("TFDS_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    refused = program("train.py", DIGITS, "--config.data.name=mnist", f"--workdir={tmp_path}/run")
    check_refused(*refused, "'mnist' is not prepared", str(tmp_path), "configs/digits.py")
    refused = program("train.py", DIGITS, "--config.data.name=cifar10", f"--workdir={tmp_path}/run")
    check_refused(
        *refused,
        "'cifar10' is nowhere",
        f"cifar-10-python.tar.gz, cifar-10-batches-py/, cifar-10-binary.tar.gz, "
        f"cifar-10-batches-bin/ in {tmp_path}, {tmp_path}/seenn_jax;",
        "--config.data.dir",
        "--config.data.download=true",
        "configs/digits.py",
    )


def test_a_changed_config_in_a_used_workdir(program, trained, make_config, contents):
    before = contents(trained)
    changed = make_config(seed=1, model={"tau": 0.25})
    refused = program("train.py", DIGITS, f"--workdir={trained}", *flags_of(changed))
    check_refused(
        *refused, "--config.seed was 0 and is 1", "--config.model.tau was 0.5 and is 0.25"
    )
    assert contents(trained) == before


def test_a_finished_run(program, trained, make_config, contents):
    before = contents(trained)
    arguments = ["--config", "configs/digits.py", f"--workdir={trained}", *flags_of(make_config())]
    assert program("train.py", *arguments) == (
        0,
        f"{trained} is trained: all 6 epochs are done.\n"
        f"Next: python evaluate.py --workdir={trained}\n",
        "",
    )
    assert contents(trained) == before


def test_a_learning_rate_at_which_the_loss_is_lost(program, make_config, tmp_path):
    config = make_config(timesteps=1, inherit_epochs=0, optimizer={"learning_rate": 1e30})
    status, out, err = program("train.py", DIGITS, f"--workdir={tmp_path}", *flags_of(config))
    check_refused(status, out, err, "became", "--config.optimizer.learning_rate (now 1e+30)")
    assert list((tmp_path / "checkpoints").iterdir()) == []
    # It can be mended in its place.
    changed = make_config(timesteps=0)
    refused = program("train.py", DIGITS, f"--workdir={tmp_path}", *flags_of(changed))
    check_refused(*refused, "--config.timesteps is 0")


@pytest.mark.slow
def test_a_folder_of_one_s_own(program, picture, encoded, tmp_path):
    images, run = tmp_path / "images", tmp_path / "run"
    for label, name in enumerate(("cat", "dog")):
        (images / name).mkdir(parents=True)
        for i in range(15):
            data = encoded(picture(100 * label + i, 20 + i, 30))
            (images / name / f"{i}.jpg").write_bytes(data)
    tiny = ("epochs=1", "inherit_epochs=0", "model.width=4", "timesteps=2", "batch_size=8")
    of_data = ("image_size=8", "workers=0", "validation=0.25", "crop_area=(0.5,1)", "resize=1.0")
    status, out, err = program(
        "train.py",
        "--config=configs/folder.py",
        f"--workdir={run}",
        f"--config.data.name={images}",
        *(f"--config.{setting}" for setting in tiny),
        *(f"--config.data.{setting}" for setting in of_data),
    )
    assert (status, err) == (0, "")
    assert "18 images, 6 held out for validation" in out  # of 24; every fifth is for testing
    config, facts = folder.load(run)
    assert facts.classes == ("cat", "dog")
    assert config.data.validation == 0.25
    assert config.data.crop_area == (0.5, 1)
    images.rename(tmp_path / "moved")
    jpgs = [tmp_path / "moved" / "cat" / f"{i}.jpg" for i in range(2)]
    refused = program("evaluate.py", f"--workdir={run}")
    check_refused(*refused, f"'{images}' and there is no such folder", "moved, give --data_name\n")
    status, _, err = program("evaluate.py", f"--workdir={run}", f"--data_name={tmp_path}/moved")
    assert status == 0
    assert "6 validation images are too few to choose" in err
    assert "hold out 150 or more" in err
    chosen = ("--target_timesteps=2", f"--data_name={tmp_path}/moved")
    status, out, _ = program("seenn_jax/__main__.py", "predict", f"--workdir={run}", *chosen, *jpgs)
    assert status == 0
    assert "2 images; " in out
    assert "at most 2 timesteps on average" in out


def test_a_network_that_can_only_teach(program, make_config, tmp_path):
    changes = {"model": {"name": "qkformer_small", "width": 8}, "activation": "relu"}
    config = make_config(**changes, loss="mean_ce", epochs=1, inherit_epochs=0)
    status, out, err = program("train.py", DIGITS, f"--workdir={tmp_path}", *flags_of(config))
    assert (status, err) == (0, "")
    assert "This network can teach, and can't be converted to spikes: it has a product of" in out
    assert out.endswith(f"Next: python evaluate.py --workdir={tmp_path} --ann\n")
