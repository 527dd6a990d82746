"""The run whose network a policy is for, and runs that do not fit."""

import json
import shutil

import pytest

from seenn_jax.errors import UserError
from seenn_jax.run import folder
from seenn_jax.training.policy.source import source


def test_the_newest_run_that_fits_is_found(trained, make_policy_config, tmp_path, dataset):
    facts = folder.DataFacts.of(dataset)
    for name in ("a", "b"):
        shutil.copytree(trained, tmp_path / name)
    (tmp_path / "b" / "checkpoints").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    found = source(make_policy_config(), tmp_path / "policy", facts)
    assert found == tmp_path / "b"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"timesteps": 4}, r"does not fit: its config\.timesteps is 3, and the policy's is 4"),
        ({"model": {"width": 5}}, r"its config\.model\.width is 16, and the policy's is 5"),
        ({"data": {"validation": 151}}, r"its config\.data\.validation is 150"),
    ],
    ids=str,
)
def test_a_network_that_does_not_fit_is_named(
    trained, make_policy_config, call_train, tmp_path, changes, match
):
    config = make_policy_config(init_from=str(trained), **changes)
    with pytest.raises(UserError, match=match):
        call_train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_for_other_classes_is_named(copy_of_trained, make_policy_config, dataset):
    content = json.loads((copy_of_trained / "run.json").read_text())
    content["data"].update(num_classes=7, classes=[])
    del content["checksum"]
    (copy_of_trained / "run.json").write_text(json.dumps(content))
    config = make_policy_config(init_from=str(copy_of_trained))
    with pytest.raises(UserError, match="it has 7 classes, and the data 10"):
        source(config, copy_of_trained.parent / "x", folder.DataFacts.of(dataset))


def test_a_network_older_than_names_of_classes_fits(make_policy_config, trained):
    facts = folder.load(trained)[1]
    assert facts.classes == ()
    facts = facts._replace(classes=tuple("abcdefghij"))
    config = make_policy_config(init_from=str(trained))
    assert source(config, trained.parent / "x", facts) == trained


def test_what_is_no_network_is_named(make_policy_config, call_train, trained_policy, tmp_path):
    for init_from, match in [
        (tmp_path / "nowhere", "nowhere holds no run"),
        (trained_policy, "it is a policy's run itself"),
        ("", r"`config\.init_from` is not set, and no run in .* has a network that fits"),
    ]:
        with pytest.raises(UserError, match=match):
            call_train(make_policy_config(init_from=str(init_from)), tmp_path / "a" / "run")
        assert list(tmp_path.iterdir()) == []
