"""Weights are the run that they are of, and what is wrong with a file is said in one sentence."""

import hashlib
import json
from pathlib import Path

import chex
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import seenn_jax
from seenn_jax import paths
from seenn_jax.errors import UserError
from seenn_jax.models import conversion
from seenn_jax.plugins import load_plugins
from seenn_jax.run import folder, weights
from seenn_jax.run.inference import load
from seenn_jax.run.weights import export_weights
from tests.run.untrained import untrained

KEPT = {
    "exit": "confidence",
    "threshold": 0.4,
    "threshold_rule": "as given",
    "temperatures": [1.0, 2.0, 3.0],
    "timesteps": 3,
}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """(path, SHA-256) of the weights of `trained`. Look, don't touch."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return path, export_weights(path, load(trained), exit=KEPT)


@pytest.fixture
def copy(exported, tmp_path):
    path = tmp_path / "copy.safetensors"
    path.write_bytes(exported[0].read_bytes())
    return path


@pytest.fixture
def shelf(exported, tmp_path, monkeypatch):
    """The folder of the weights that come with the package, with one called tiny."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path, sha256 = exported
    (shelf / path.name).write_bytes(path.read_bytes())
    (shelf / "index.json").write_text(json.dumps({"tiny": {"file": path.name, "sha256": sha256}}))
    monkeypatch.setattr(weights, "shipped", lambda name: shelf)
    return shelf


def rewritten(path, change):
    """The file with other metadata and tensors: `change(texts, tensors)` changes both in place."""
    with safetensors.safe_open(path, framework="np") as file:
        texts = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(texts, tensors)
    path.write_bytes(safetensors.numpy.save(tensors, metadata=texts))


def state_of(model):
    return nnx.state(model, (nnx.Param, nnx.BatchStat))


# --- What is written is what is read ---------------------------------------------------------


def test_weights_are_the_run(trained, exported):
    run, read = load(trained), load(exported[0])
    chex.assert_trees_all_equal(state_of(read.model), state_of(run.model), strict=True)
    assert read.config.to_dict() == run.config.to_dict()
    assert read.facts == run.facts
    assert (read.step, read.kind, read.timesteps) == (run.step, "spiking", 3)
    assert read.trained.exit() == KEPT
    origin = json.loads((trained / "run.json").read_text())
    assert read.trained.about == {
        **{name: origin[name] for name in ("revision", "versions", "device", "plugins")},
        "checkpoint_step": run.step,
        "sha256": exported[1],
    }
    assert exported[1] == hashlib.sha256(exported[0].read_bytes()).hexdigest()
    assert "dataset" not in vars(read)  # nobody has asked for it
    assert read.dataset.test.size == 360


def test_weights_have_their_exit(exported):
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
    read = load(exported[0])
    rule, chosen, temperatures = read.exit_of(None, None)
    assert (rule.name, chosen.value, temperatures.tolist()) == ("confidence", 0.4, [1, 2, 3])
    found = read.predict(images)
    assert found.names == tuple(map(str, found.classes))
    assert len(found.timesteps) == 9


def test_a_run_that_was_not_evaluated_has_no_exit(trained, tmp_path):
    path = tmp_path / "a.safetensors"
    export_weights(path, load(trained))
    match = rf"a\.safetensors has not been .*: run python evaluate\.py --weights={path}, or say"
    with pytest.raises(UserError, match=match):
        load(path).predict(np.zeros((1, 8, 8, 1), np.uint8))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_kernels_are_the_rounded_network(trained, exported, tmp_path, dtype):
    path = tmp_path / "narrow.safetensors"
    run = load(weights.in_dtype(weights.opened(trained), dtype))
    export_weights(path, run, dtype=dtype)
    assert path.stat().st_size < exported[0].stat().st_size
    chex.assert_trees_all_equal(state_of(load(path).model), state_of(run.model), strict=True)
    assert not np.array_equal(
        run.model.blocks[0].conv1.conv.kernel[...],
        load(trained).model.blocks[0].conv1.conv.kernel[...],
    )
    # The same network in float32 is the same file, whatever it was read from.
    export_weights(tmp_path / "wide.safetensors", load(path))
    again = load(tmp_path / "wide.safetensors")
    chex.assert_trees_all_equal(state_of(again.model), state_of(run.model), strict=True)


def test_a_policy_s_weights_have_both_networks(trained_policy, tmp_path):
    path = tmp_path / "policy.safetensors"
    run = load(trained_policy)
    export_weights(path, run)
    images = run.dataset.test.images[:40]
    found, wanted = (each.predict(images, exit="policy") for each in (load(path), run))
    np.testing.assert_array_equal(found.classes, wanted.classes)
    np.testing.assert_array_equal(found.timesteps, wanted.timesteps)


@pytest.mark.parametrize("activation", ["qcfs", pytest.param("relu", marks=pytest.mark.slow)])
def test_a_network_to_be_converted_takes_no_data(trained, make_config, tmp_path, activation):
    config = make_config(activation=activation, loss="mean_ce", inherit_epochs=0)
    workdir = untrained(tmp_path / activation, config, folder.load(trained)[1])
    run = load(workdir, percentile=100.0 if activation == "relu" else None)
    path = tmp_path / "ann.safetensors"
    export_weights(path, run)
    read = load(path)
    assert (read.kind, "dataset" in vars(read)) == ("converted", False)
    assert conversion.thresholds_of(read.model) == conversion.thresholds_of(run.model)
    ordinary = load(path, ann=True)
    assert ordinary.kind == "ANN"
    chex.assert_trees_all_equal(
        state_of(ordinary.model), state_of(load(run.workdir, ann=True).model)
    )
    match = r"weights are written of the spiking network, and .*: load it without `ann`"
    with pytest.raises(UserError, match=match):
        export_weights(tmp_path / "other.safetensors", ordinary)
    if activation == "relu":
        # Asked for others, it looks at the data.
        other = load(path, percentile=99.99)
        assert conversion.thresholds_of(other.model) != conversion.thresholds_of(read.model)


def test_paths_of_this_machine_stay_here(trained, tmp_path):
    trained_ = weights.opened(trained)
    config = trained_.config.copy_and_resolve_references()
    config.data.update(dir="/home/me/data", name="folder:/home/me/flowers")
    config.update(teacher="runs/ann", init_weights="~/weights/a.safetensors")
    config.plugins = ("/home/me/mine.py", "yours")
    about = trained_.about | {"plugins": {"/home/me/mine.py": ["LOSSES.mine"], "yours": []}}
    path = tmp_path / "a.safetensors"
    export_weights(path, _with(trained_._replace(about=about), config))
    with safetensors.safe_open(path, framework="np") as file:
        texts = file.metadata()
    found = json.loads(texts["config"])
    assert json.loads(texts["origin"])["plugins"] == {"mine.py": ["LOSSES.mine"], "yours": []}
    assert found["data"]["dir"] == ""
    assert found["data"]["name"] == "folder:flowers"
    assert (found["teacher"], found["init_weights"]) == ("runs/ann", "a.safetensors")
    assert found["plugins"] == ["mine.py", "yours"]
    assert "/home" not in str(texts)


def test_a_plugin_goes_by_the_name_of_its_file(trained, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import seenn_jax\nseenn_jax.LOSSES['of_weights'] = lambda config: None\n"
    )
    trained_ = weights.opened(trained)
    config = trained_.config.copy_and_resolve_references()
    config.plugins = (*config.plugins, str(tmp_path / "mine.py"))
    load_plugins(config.plugins)
    export_weights(tmp_path / "a.safetensors", _with(trained_, config))
    with pytest.raises(UserError, match=r"names 'mine.py'.*put it into the working directory or"):
        weights.read(tmp_path / "a.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    found = weights.read(tmp_path / "a.safetensors")  # it is not run again
    assert found.config.plugins == (*trained_.config.plugins, "mine.py")


def _with(trained, config):
    """What `export_weights` asks of a loaded run with this config."""

    class Run:
        kind, thresholds = "spiking", None

    Run.trained = trained._replace(config=config, network=lambda _: trained.network(trained.config))
    return Run


# --- By name ---------------------------------------------------------------------------------


def test_weights_by_name(shelf, exported, trained, tmp_path, monkeypatch):
    assert seenn_jax.load("tiny").trained.about["sha256"] == exported[1]
    assert weights.names().keys() == {"tiny"}
    with pytest.raises(UserError, match=r"unknown weights 'tini': .*did you mean 'tiny'"):
        weights.read("tini")
    # A run of that name comes first.
    monkeypatch.chdir(tmp_path)
    Path("tiny").symlink_to(trained)
    assert seenn_jax.load("tiny").trained.setting == "workdir"


def test_a_wrong_hash_is_named(shelf, exported):
    path = shelf / "tiny.safetensors"
    rewritten(path, lambda texts, tensors: tensors["network.head.bias"].fill(1))
    there = hashlib.sha256(path.read_bytes()).hexdigest()
    match = rf"is not the file that 'tiny' stands for: its SHA-256 is {there} and must be "
    with pytest.raises(UserError, match=match + exported[1]):
        load("tiny")
    # By its path it is a file as any other.
    assert load(path).trained.about["sha256"] == there


def test_what_is_written_into_a_folder_with_an_index_gets_a_name(trained, shelf):
    sha256 = export_weights(shelf / "another-tiny.safetensors", load(trained))
    assert list(weights.names()) == ["another-tiny", "tiny"]
    assert weights.names()["another-tiny"] == {"file": "another-tiny.safetensors", "sha256": sha256}
    assert load("another-tiny").kind == "spiking"


def test_the_weights_that_come_with_the_package():
    shelf = paths.shipped("weights")
    assert sum(path.stat().st_size for path in shelf.iterdir()) < 30 * 2**20
    names = weights.names()
    assert {f"{name}.safetensors" for name in names} == {
        p.name for p in shelf.glob("*.safetensors")
    }
    for name, row in names.items():
        read = weights.read(name)
        assert read.about["sha256"] == row["sha256"]
        card = (shelf / f"{name}.md").read_text()
        assert row["sha256"] in card
        assert read.exit()["threshold_rule"] in card
        read.network(read.config)
        assert not any(part in card for part in ("/home", "/root", "/tmp", "+changes"))


# --- Mistakes --------------------------------------------------------------------------------


def damaged(how):
    def damage(path):
        path.write_bytes(how(path.read_bytes()))

    return damage


def changed(change):
    return lambda path: rewritten(path, change)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (damaged(lambda data: data[:-5]), "is no whole file of weights"),
        (damaged(lambda data: data[:50]), "is no whole file of weights"),
        (damaged(lambda data: b""), "is no whole file of weights"),
        (damaged(lambda data: b"\x89PNG\r\n\x1a\n" + data), "is no whole file of weights"),
        (changed(lambda texts, _: texts.clear()), "its format is None, and 'seenn_jax 1' can be"),
        (changed(lambda texts, _: texts.update(format="seenn_jax 9")), "format is 'seenn_jax 9'"),
        (changed(lambda texts, _: texts.update(config="{")), "is no whole file of weights"),
        (changed(lambda texts, _: texts.update(config="[]")), "metadata that can't be read"),
        (changed(lambda texts, _: texts.update(data="{}")), "metadata that can't be read"),
        (changed(lambda texts, _: texts.pop("exit")), r"can't be read \(KeyError: 'exit'\)"),
        (
            changed(lambda _, tensors: tensors.update({"network.head.bias": np.zeros(3, "f4")})),
            r"is of another architecture: head\.bias is of shape \(3,\) in it and of shape \(10,\)",
        ),
        (
            changed(lambda _, tensors: tensors.pop("network.stem.conv.kernel")),
            r"is of another architecture: stem\.conv\.kernel is missing in it",
        ),
    ],
)
def test_a_damaged_file_is_named(copy, damage, match):
    damage(copy)
    with pytest.raises(UserError, match=match) as caught:
        load(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path, shelf):
    with pytest.raises(UserError, match=r"no\.safetensors can't be read \(No such file.*tiny"):
        load(tmp_path / "no.safetensors")
    with pytest.raises(UserError, match="nonsense holds no run"):
        load("nonsense")


def test_nothing_is_written_over_a_file(trained, copy):
    before, run = copy.read_bytes(), load(trained)
    with pytest.raises(UserError, match=r"`export_weights`=.*copy\.safetensors exists already"):
        export_weights(copy, run)
    copy.with_name("new.md").write_text("my notes")
    with pytest.raises(UserError, match=r"new\.md exists already"):
        export_weights(copy.with_name("new.safetensors"), run)
    with pytest.raises(UserError, match=r"weights\.npz must end in \.safetensors"):
        export_weights(copy.with_name("weights.npz"), run)
    with pytest.raises(UserError, match=r"unknown `weights_dtype` 'int4': .*did you mean 'int8'"):
        export_weights(copy.with_name("new.safetensors"), run, dtype="int4")
    assert copy.read_bytes() == before
