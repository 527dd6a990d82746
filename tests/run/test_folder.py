"""A run's folder: claimed once, read back as it was, and never changed by a mistake."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from seenn_jax.data import Dataset, Split, Stream
from seenn_jax.data.folders import Folder
from seenn_jax.data.images import Framing
from seenn_jax.errors import UserError
from seenn_jax.run import folder

FACTS = folder.DataFacts((8, 8, 1), 10, [0.25], [0.375])


def with_checkpoint(workdir):
    (workdir / folder.CHECKPOINTS / "27").mkdir(parents=True)
    return workdir


def test_the_scalars_of_training_are_read_epoch_by_epoch(tmp_path):
    assert folder.metrics(tmp_path) == []
    unfinished = '{"step": 27, "train/lo'
    lines = ['{"step": 9, "train/loss": 2.5}', '{"step": 18, "train/loss": 1.0}', unfinished]
    (tmp_path / folder.METRICS_FILE).write_text("\n".join(lines))
    expected = [{"step": 9, "train/loss": 2.5}, {"step": 18, "train/loss": 1.0}]
    assert folder.metrics(tmp_path) == expected


def test_runs_of_recordings_keep_the_counts_that_they_were_trained_with(tmp_path, make_config):
    """Older ones have no such setting, and had counts cut off at what a byte holds."""
    config = make_config(data={"name": "cifar10_dvs"})
    facts = folder.DataFacts((48, 48, 2), 10, [0, 0], [1, 1], 3)
    folder.claim(with_checkpoint(tmp_path / "new"), config, facts)
    assert not folder.load(tmp_path / "new")[0].data.saturate
    content = {"config": config.to_dict(), "data": facts._asdict()}
    del content["config"]["data"]["saturate"], content["data"]["dtype"]
    with_checkpoint(tmp_path / "old")
    (tmp_path / "old" / folder.FILE).write_text(json.dumps(content))
    old, its_facts = folder.load(tmp_path / "old")
    assert old.data.saturate
    assert its_facts == facts
    with pytest.raises(UserError, match=r"`config.data.saturate` was True and is False"):
        folder.claim(tmp_path / "old", config, facts)
    content["config"]["data"]["name"] = "digits_dvs"  # which counted without a limit
    (tmp_path / "old" / folder.FILE).write_text(json.dumps(content))
    assert not folder.load(tmp_path / "old")[0].data.saturate


def test_how_data_are_read_may_change_while_a_run_is_continued(tmp_path, make_config):
    folder.claim(with_checkpoint(tmp_path / "run"), make_config(), FACTS)
    folder.claim(tmp_path / "run", make_config(data={"workers": 3}, checkpoint_every=5), FACTS)


def test_the_facts_of_a_streamed_data_set_are_known_beforehand():
    nothing_read = Stream(Folder(Path("not read"), []), np.arange(3), Framing(16), False)
    facts = folder.DataFacts.of(Dataset("made up", nothing_read, nothing_read, nothing_read, 7))
    assert facts == folder.DataFacts((16, 16, 3), 7, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_the_facts_of_a_data_set_are_those_of_its_train_split():
    images = np.zeros((2, 4, 4, 2), np.uint8)
    images[0, ..., 0] = 255
    one = np.zeros((1, 4, 4, 2), np.uint8)
    split = Split(images, np.array([0, 2], np.int32))
    other = Split(one, np.array([1], np.int32))
    facts = folder.DataFacts.of(Dataset("made up", split, other, other, 3))
    # Channel 0 is half 0, half 1: mean 1/2, deviation 1/2; channel 1 is constant.
    assert facts == folder.DataFacts((4, 4, 2), 3, [0.5, 0.0], [0.5, 1.0])
    mean, std = facts.normalization
    assert mean.dtype == std.dtype == np.float32


def test_the_facts_of_event_data_keep_no_event_at_zero():
    frames = np.zeros((2, 3, 4, 5, 2), np.uint8)
    frames[0, ..., 0] = 2
    split = Split(frames, np.array([0, 1], np.int32))
    facts = folder.DataFacts.of(Dataset("made up", split, split, split, 2))
    # Channel 0: half of the counts are 2, so their root mean square is sqrt(2).
    assert facts._replace(std=None) == folder.DataFacts((4, 5, 2), 2, [0.0, 0.0], None, frames=3)
    assert facts.std == pytest.approx([2**0.5 / 255, 1])


def test_what_is_claimed_is_loaded(tmp_path, make_config):
    config = make_config()
    folder.claim(tmp_path / "a" / "b", config, FACTS)
    loaded, facts = folder.load(tmp_path / "a" / "b")
    assert loaded.to_dict() == config.to_dict()
    assert facts == FACTS
    content = json.loads((tmp_path / "a" / "b" / "run.json").read_text())
    about = {"teacher", "init_weights", "plugins", "revision", "versions", "device"}
    assert content.keys() == {"config", "data", "checksum"} | about
    assert os.listdir(tmp_path / "a" / "b") == ["run.json"]


def test_a_run_that_is_older_than_a_setting_has_its_default(tmp_path, make_config):
    config = make_config()
    folder.claim(tmp_path, config, FACTS)
    with_checkpoint(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    del content["config"]["activation"], content["checksum"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert folder.load(tmp_path)[0].to_dict() == config.to_dict()
    folder.claim(tmp_path, config, FACTS)
    with pytest.raises(UserError, match=r"`config\.activation` was 'lif' and is 'relu' *\)"):
        folder.claim(tmp_path, make_config(activation="relu"), FACTS)


def test_a_used_workdir_takes_the_same_config_only(tmp_path, make_config, contents):
    folder.claim(tmp_path, make_config(), FACTS)
    with_checkpoint(tmp_path)
    before = contents(tmp_path)
    folder.claim(tmp_path, make_config(), FACTS)
    changed = make_config(seed=3, optimizer={"learning_rate": 0.5})
    with pytest.raises(UserError) as caught:
        folder.claim(tmp_path, changed, FACTS)
    message = str(caught.value)
    assert "`config.optimizer.learning_rate` was 0.1 and is 0.5" in message
    assert "`config.seed` was 0 and is 3" in message
    assert message.count(" was ") == 2
    assert "another --workdir" in message
    assert contents(tmp_path) == before


def test_a_used_workdir_takes_the_same_data_only(tmp_path, make_config):
    folder.claim(tmp_path, make_config(), FACTS)
    with_checkpoint(tmp_path)
    with pytest.raises(UserError, match="other images of 'digits'"):
        folder.claim(tmp_path, make_config(), FACTS._replace(mean=[0.26]))


def test_runs_older_than_names_of_classes_are_of_the_same_images():
    old = folder.DataFacts((8, 8, 1), 2, [0.5], [0.25])
    cats, birds = (old._replace(classes=names) for names in (("cat", "dog"), ("bird", "dog")))
    assert old.same_images(cats)
    assert cats.same_images(old)
    assert cats.same_images(cats)
    assert not cats.same_images(birds)
    assert not cats.same_images(old._replace(mean=[0.4]))


def test_a_run_that_failed_before_its_first_checkpoint_can_be_mended(tmp_path, make_config):
    folder.claim(tmp_path, make_config(), FACTS)
    (tmp_path / folder.CHECKPOINTS / "27.orbax-checkpoint-tmp").mkdir(parents=True)
    folder.claim(tmp_path, make_config(seed=3), FACTS)
    assert folder.load(tmp_path)[0].seed == 3


def test_a_workdir_that_cannot_be_made(tmp_path, make_config):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=f"{workdir} can't be made"):
            folder.claim(workdir, make_config(), FACTS)


@pytest.mark.parametrize(
    "text",
    ["{", '"config"', "[]", "{}", '{"config": {}}', "[" * 100_000, '{"a":' * 100_000, "\xff"],
)
def test_a_damaged_run_is_named(tmp_path, text):
    (tmp_path / "run.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=r"run\.json .*: restore it"):
        folder.load(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no run"):
        folder.load(tmp_path)


def test_newest_is_the_run_that_was_trained_last(tmp_path, make_config):
    with pytest.raises(UserError, match="there is no run in"):
        folder.newest(tmp_path)
    for age, name in enumerate(("b", "a", "c")):
        folder.claim(tmp_path / name, make_config(), FACTS)
        os.utime(with_checkpoint(tmp_path / name) / folder.CHECKPOINTS, (0, 1000 - age))
    assert folder.newest(tmp_path) == tmp_path / "b"
    os.utime(tmp_path / "a" / folder.CHECKPOINTS, (0, 2000))
    assert folder.newest(tmp_path) == tmp_path / "a"
    # One that has only just begun has no checkpoints yet.
    folder.claim(tmp_path / "d", make_config(), FACTS)
    assert folder.newest(tmp_path) == tmp_path / "d"


@pytest.mark.parametrize(
    ("name", "value"), [("image_shape", [8, 8, 10**30]), ("num_classes", 2**31), ("frames", 10**20)]
)
def test_sizes_that_no_data_have(tmp_path, make_config, name, value):
    content = {"config": make_config().to_dict(), "data": FACTS._asdict() | {name: value}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"the {name} of its data can't be"):
        folder.load(tmp_path)


def test_a_run_that_cannot_be_read_is_not_called_damaged(tmp_path, make_config, monkeypatch):
    folder.claim(tmp_path, make_config(), FACTS)
    (tmp_path / folder.EXIT_FILE).touch()

    def gone(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(type(tmp_path), "read_bytes", gone)
    for read in (folder.load, folder.kept_exit):
        with pytest.raises(
            UserError, match=r"json can't be read \(Input/output error\): mend that"
        ):
            read(tmp_path)
