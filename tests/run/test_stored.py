"""A checkpoint is read as it was written, or it is said what is wrong with it."""

import collections
import json
import os
import shutil

import numpy as np
import pytest

from seenn_jax.errors import UserError
from seenn_jax.run import checkpoints, folder, stored
from seenn_jax.run.inference import load


def metrics_file(workdir, step):
    return workdir / "checkpoints" / str(step) / "metrics" / "metrics"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with the checkpoints 3, 5 and 7; the best is 3."""
    workdir = tmp_path_factory.mktemp("run")
    with checkpoints.open_checkpoints(workdir) as manager:
        for step, score in ((3, 0.9), (5, 0.4), (7, 0.5)):
            x = np.random.default_rng(step).normal(size=(40, 40)).astype(np.float32)
            checkpoints.save(manager, step, {"x": x, "step": np.int32(step)}, score)
    return workdir


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_a_checksum_is_of_names_dtypes_shapes_and_bits():
    x = np.arange(6, dtype=np.float32)
    trees = [
        {"x": x},
        {"y": x},
        {"x": x.reshape(2, 3)},
        {"x": x.view(np.int32)},
        {"x": np.nextafter(x, 9, dtype=np.float32)},
        {"x": x, "y": x[:0]},
        {"x": x[0]},
        {"x": x[:1]},
    ]
    assert len({stored.checksum_of(tree) for tree in trees}) == len(trees)
    assert stored.checksum_of({"a": x, "b": x[1:]}) == stored.checksum_of({"b": x[1:], "a": x})


def files_of_checkpoint(workdir, step):
    files = (workdir / "checkpoints" / str(step)).rglob("*")
    return sorted((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_flipped_bit_of_the_data_is_found(copy):
    """Deflated data decode whichever bits are flipped, to other numbers."""
    largest = files_of_checkpoint(copy, 7)[-1]
    whole, before = largest.read_bytes(), stored.arrays(copy, 7)
    rng, tried = np.random.default_rng(0), collections.Counter()
    for place in rng.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        largest.write_bytes(damaged)
        try:
            found = stored.arrays(copy, 7)
        except stored.Damaged as error:
            found = before
            tried[error.step] += 1
        assert all(np.array_equal(found[name], before[name]) for name in before)
    assert tried[7] > 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"score": "high"}',
        '{"score": true}',
        '{"score": NaN}',
        '{"score": 0.5, "arrays": 1}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_damaged_metrics_are_named(copy, text):
    metrics_file(copy, 5).write_text(text)
    with pytest.raises(stored.Damaged, match=r"checkpoints/5 is damaged \("):
        checkpoints.best_step(copy)


def test_another_score_is_found(copy):
    path = metrics_file(copy, 5)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"score": 0.95}))
    with pytest.raises(stored.Damaged, match="its score is not the one that was written"):
        checkpoints.best_step(copy)


def test_damaged_checkpoints_are_set_aside_once_each(copy):
    metrics_file(copy, 7).unlink()
    os.truncate(files_of_checkpoint(copy, 3)[-1], 9)
    said = checkpoints.set_aside_damaged(copy)
    assert [sentence.split(" (")[0] for sentence in said] == [
        f"checkpoint {copy}/checkpoints/{step} is damaged" for step in (3, 7)
    ]
    assert said[1].endswith("; it is set aside as damaged-7.")
    assert checkpoints.steps(copy) == [5]
    assert not checkpoints.is_whole(copy, 7)
    assert checkpoints.set_aside_damaged(copy) == []
    # A later one of that step is a checkpoint as any, and may be damaged as well.
    with checkpoints.open_checkpoints(copy) as manager:
        checkpoints.save(manager, 7, {"x": np.zeros(2)}, 0.1)
    assert checkpoints.steps(copy) == [5, 7]
    metrics_file(copy, 7).unlink()
    assert checkpoints.set_aside_damaged(copy)[0].endswith("aside as damaged-7-2.")


def test_a_save_that_does_not_happen_is_an_error(copy):
    with checkpoints.open_checkpoints(copy) as manager, pytest.raises(UserError) as caught:
        checkpoints.save(manager, 6, {"x": np.zeros(2)}, 0.1)
    assert "checkpoint 6 of" in str(caught.value)
    assert "was not written, since a later one is there (7)" in str(caught.value)


def test_what_keeps_one_from_being_read_may_be_no_damage(copy):
    with pytest.raises(UserError, match="can't be read") as caught, stored.reading(copy, 7):
        raise PermissionError("Permission denied")
    assert not isinstance(caught.value, stored.Damaged)


def test_a_disk_that_is_full_is_said(tmp_path, monkeypatch):
    room = shutil.disk_usage(tmp_path)
    with checkpoints.open_checkpoints(tmp_path) as manager:

        def full(*_, **__):
            raise ValueError("EXHAUSTED: [OS error 28: ENOSPC No space left on device] y")

        for where, name, what in (
            (checkpoints.shutil, "disk_usage", lambda path: room._replace(free=10_000)),
            (manager, "save", full),
        ):
            monkeypatch.setattr(where, name, what)
            with pytest.raises(UserError) as caught:
                checkpoints.save(manager, 6, {"x": np.zeros(2)}, 0.1)
            monkeypatch.undo()
            assert "checkpoints (No space left on device): make room there" in str(caught.value)
        monkeypatch.setattr(manager, "wait_until_finished", full)
        with pytest.raises(UserError, match="No space left on device"):
            checkpoints.finish(manager)
        monkeypatch.undo()


# --- Of a run -------------------------------------------------------------------------------------


def test_evaluation_names_a_damaged_checkpoint_and_takes_another(copy_of_trained, trained):
    best, *others = sorted(
        checkpoints.steps(trained), key=lambda step: -stored.score(trained, step)
    )
    os.truncate(files_of_checkpoint(copy_of_trained, best)[-1], 9)
    with pytest.raises(UserError) as caught:
        load(copy_of_trained)
    offered = ", ".join(map(str, sorted(others)))
    assert f"checkpoints/{best} is damaged (" in str(caught.value)
    assert f"pick another one by `checkpoint`: {offered}" in str(caught.value)
    assert load(copy_of_trained, checkpoint=others[0]).step == others[0]
    with pytest.raises(UserError, match=f"`checkpoint` is 1, and .*{offered.split(', ')[0]}"):
        load(copy_of_trained, checkpoint=1)
    with pytest.raises(UserError, match="`checkpoint`=1 is of a run, and"):
        load("digits-resnet8", checkpoint=1)


def test_one_that_training_replaces_while_it_is_read(copy_of_trained, monkeypatch):
    config, facts = folder.load(copy_of_trained)
    best = checkpoints.best_step(copy_of_trained)
    read = stored.arrays

    def replaced(workdir, step):
        if step == best:
            shutil.rmtree(stored.place(workdir, step))
        return read(workdir, step)

    monkeypatch.setattr(stored, "arrays", replaced)
    _, step = checkpoints.load_model(copy_of_trained, config, facts)
    assert step == checkpoints.best_step(copy_of_trained) != best
