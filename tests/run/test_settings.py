"""A setting of another kind is named, in whatever a config comes from."""

import json

import pytest

from seenn_jax.config import default_config
from seenn_jax.errors import UserError
from seenn_jax.run import folder, settings

FACTS = folder.DataFacts((4, 4, 1), 3, [0.25], [0.5])
ODD = [
    ("training_levels", (1, "a"), "has 'a'"),
    ("policy.candidates", (1, 2.5), "has 2.5"),
    ("data.crop_area", (0.5, "all"), "has 'all'"),
    ("timesteps", None, "is None"),
    ("seed", 2**32, f"is {2**32}"),
    ("data.validation", 0, "is 0"),
    ("augment.flip", 1, "is 1"),
]


def with_setting(key, value):
    config = default_config()
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    return config


def test_the_defaults_fit():
    assert settings.misfit(default_config()) is None
    assert settings.misfit(with_setting("seed", 2**32 - 1)) is None
    assert settings.misfit(with_setting("ema", 0)) is None  # a whole number is a number


@pytest.mark.parametrize(("key", "value", "what"), ODD)
def test_what_is_of_another_kind_is_named(key, value, what):
    name, sentence = settings.misfit(with_setting(key, value))
    assert name == key
    assert sentence.startswith(f"`config.{key}` {what}: it must ")


@pytest.mark.parametrize(("key", "value", "what"), ODD)
def test_a_run_is_held_to_the_same(tmp_path, key, value, what):
    content = {"config": with_setting(key, value).to_dict(), "data": FACTS._asdict()}
    (tmp_path / folder.FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{folder.FILE} can't be of a run .*{key.split('.')[-1]}"):
        folder.load(tmp_path)


def test_groups_become_flat():
    assert settings.flat({"a": 1, "b": {"c": (2,), "d": {"e": None}}}) == {
        "a": 1,
        "b.c": (2,),
        "b.d.e": None,
    }
