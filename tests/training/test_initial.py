"""Fine-tuning starts from the weights of another network, with a new last layer where it must."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from seenn_jax.errors import UserError
from seenn_jax.run import build, folder
from seenn_jax.run.inference import load
from seenn_jax.run.tensors import of_model
from seenn_jax.run.weights import export_weights
from seenn_jax.training.checks import check_config
from seenn_jax.training.initial import start_from
from tests.training.runs import latest_of


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """(path, SHA-256) of the weights of `trained`. Look, don't touch."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return path, export_weights(path, load(trained))


@pytest.fixture
def start(trained, make_config, exported):
    """`(facts changed, **config) -> (tensors, fresh ones, what is known, what was printed)`."""
    facts = folder.load(trained)[1]

    def call(changes=None, **config):
        ours = facts._replace(**changes or {})
        config = make_config(init_weights=str(exported[0]), **config)
        fresh, out = build.network(config, ours), io.StringIO()
        model, about = start_from(config, fresh, ours, Console(file=out, soft_wrap=True))
        return of_model(model), of_model(fresh), about, out.getvalue()

    return call


def test_all_layers(start, trained, exported):
    found, _, about, said = start()
    wanted = of_model(load(trained).model)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert said == f"Starting from {exported[0]}: all layers.\n"
    assert about == {
        "place": str(exported[0]),
        "sha256": exported[1],
        "checkpoint_step": load(trained).step,
        "fresh": [],
    }


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({"num_classes": 3}, True),
        ({"num_classes": 10, "classes": tuple("abcdefghij")}, False),  # digits have no names
        ({"num_classes": 3, "classes": tuple("abc")}, True),
    ],
)
def test_other_classes_have_a_new_last_layer(start, trained, changes, others):
    found, fresh, about, said = start(changes)
    wanted = of_model(load(trained).model)
    new = {"head.kernel", "head.bias"} if others else set()
    assert set(about["fresh"]) == new
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, (fresh if name in new else wanted)[name])
    assert ("all layers but the last, which is of other classes" in said) == others


def test_as_many_classes_of_other_names_are_others(copy_of_trained, make_config):
    facts = folder.load(copy_of_trained)[1]
    path = copy_of_trained / "run.json"
    content = json.loads(path.read_text())
    content["data"]["classes"] = [*"abcdefghij"]
    del content["checksum"]
    path.write_text(json.dumps(content))
    config = make_config(init_weights=str(copy_of_trained))
    for names, fresh in (("abcdefghij", 0), ("abcdefghix", 2), ("", 0)):
        ours = facts._replace(classes=tuple(names))
        _, about = start_from(config, build.network(config, ours), ours, Console(quiet=True))
        assert len(about["fresh"]) == fresh


def test_a_run_is_as_good_as_its_weights(trained, make_config, exported):
    config, facts = make_config(init_weights=str(trained)), folder.load(trained)[1]
    model, about = start_from(config, build.network(config, facts), facts, Console(quiet=True))
    wanted = of_model(load(exported[0]).model)
    assert all(np.array_equal(tensor, wanted[name]) for name, tensor in of_model(model).items())
    assert (about["place"], about["sha256"]) == (str(trained), None)


def test_no_weights_are_a_fresh_network(trained, make_config):
    facts, config = folder.load(trained)[1], make_config()
    model = build.network(config, facts)
    assert start_from(config, model, facts, Console(quiet=True)) == (model, None)


@pytest.mark.parametrize(
    ("changes", "config", "match"),
    [
        (
            {},
            {"model": {"width": 6}},
            r"not one_block of width 6 for digits: .*\(16,\) in it",
        ),
        ({"image_shape": (8, 8, 3)}, {}, r"stem\.conv\.kernel is of shape \(3, 3, 1, 16\) in it"),
        ({}, {"activation": "qcfs", "loss": "mean_ce"}, "neuron1.raw is missing in it"),
        ({}, {"model": {"name": "vgg16"}}, "missing in the network"),
    ],
    ids=["width", "channels", "activation", "model"],
)
def test_another_architecture_is_named(start, changes, config, match):
    if config.get("model", {}).get("name") == "vgg16":
        changes = {"image_shape": (32, 32, 1)}
    with pytest.raises(UserError, match=f"`config.init_weights` is .*{match}"):
        start(changes, **config)


def test_what_has_learnt_what_is_held_out_is_no_start(start):
    with pytest.raises(UserError, match=r"held out 150 images of digits .* here 400 are, some of"):
        start(data={"validation": 400})
    start(data={"validation": 400, "train_on_validation": True})


def test_a_policy_starts_from_a_run(make_policy_config):
    with pytest.raises(UserError, match=r"`config\.init_weights` is 'x', and a policy is for"):
        check_config(make_policy_config(init_weights="x"))


def test_training_starts_from_them_and_goes_on_without(exported, make_config, call_train, tmp_path):
    path = tmp_path / "copy.safetensors"
    path.write_bytes(exported[0].read_bytes())
    # A step this small leaves them as they are.
    config = make_config(
        init_weights=str(path), epochs=1, optimizer={"learning_rate": 1e-9}, ema=0.0
    )
    said = call_train(config, tmp_path / "run")
    assert f"Starting from {path}: all layers." in said
    wanted, (_, saved) = of_model(load(path).model), latest_of(tmp_path / "run")
    for name in ("stem.conv.kernel", "head.kernel", "blocks.0.conv2.conv.kernel"):
        np.testing.assert_allclose(saved[f"params.{name}"], wanted[name], atol=1e-6)
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    assert content["init_weights"]["sha256"] == exported[1]
    path.unlink()
    assert "is trained: all 1 epochs are done" in call_train(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"copy\.safetensors can't be read"):
        call_train(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()
