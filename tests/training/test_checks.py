"""The defaults are possible, and what is not is said by name."""

import runpy
from pathlib import Path

import pytest

from seenn_jax.config import default_config
from seenn_jax.errors import UserError
from seenn_jax.training.checks import check_config, open_data

CONFIGS = sorted(Path(__file__).parents[2].joinpath("configs").glob("*.py"))


def test_the_defaults_are_possible():
    check_config(default_config())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_experiments_are_possible(path):
    config = runpy.run_path(str(path))["get_config"]()
    check_config(config)
    assert config.is_locked
    assert f"--config=configs/{path.name}" in path.read_text()


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("model.name", "resnet9", "resnet8"),
        ("model.dtype", "float16", "bfloat16, float32, float64"),
        ("model.surrogate", "sigmoid", "dspike, triangle"),
        ("loss", "mse", "mean_ce, tet"),
        ("activation", "gelu", "lif, qcfs, relu"),
        ("quantization_levels", 0, "at least 1"),
        ("initial_threshold", 0.0, "above 0"),
        ("optimizer.name", "adam", "sgd"),
        ("optimizer.schedule", "step", "cosine, onecycle"),
        ("seed", -1, "from 0 to 2^32 - 1"),
        ("seed", 2**32, "from 0 to 2^32 - 1"),
        ("timesteps", 0, "at least 1"),
        ("epochs", 0, "from 1 to 1,000,000"),
        ("batch_size", 0, "at least 1"),
        ("validate_every", 0, "at least 1"),
        ("data.validation", 0, "at least 1, or a fraction of them, above 0 and below 1"),
        ("data.validation", -0.1, "at least 1, or a fraction"),
        ("data.validation", 1.5, "at least 1, or a fraction"),
        ("data.validation", "many", "at least 1, or a fraction"),
        ("data.validation", True, "at least 1, or a fraction"),
        ("data.validation", (0.1,), "at least 1, or a fraction"),
        ("data.interpolation", "cubic", "bicubic, bilinear, box, hamming, lanczos, nearest"),
        ("model.width", 0, "at least 1"),
        ("model.tau", 0.0, "above 0 and at most 1"),
        ("model.tau", 1.5, "above 0 and at most 1"),
        ("model.threshold", 0.0, "above 0"),
        ("model.threshold", float("inf"), "a number that float32 can hold"),
        ("model.reset", "sotf", "did you mean 'soft'"),
        ("model.largest_spike", 0, "from 1 to 127"),
        ("model.largest_spike", 128, "from 1 to 127"),
        ("gradient", "first", "bptt, last"),
        ("inherit_epochs", -1, "from 0 to `config.epochs` = 30"),
        ("inherit_epochs", 31, "from 0 to `config.epochs` = 30"),
        ("tet_weight", 1.5, "from 0 to 1"),
        ("tet_distillation", -1.0, "at least 0"),
        ("label_smoothing", 1.0, "at least 0 and below 1"),
        ("optimizer.learning_rate", 0.0, "above 0"),
        ("optimizer.learning_rate", float("nan"), "a number that float32 can hold"),
        ("optimizer.momentum", 1.0, "at least 0 and below 1"),
        ("optimizer.momentum", 0.0, "above 0 for Nesterov"),
        ("optimizer.weight_decay", -1e-4, "at least 0"),
        ("ema", 1.0, "at least 0 and below 1"),
        ("augment.crop", 100_000, "from 0 to 1,000"),
        ("data.image_size", -1, "from 0 to 10,000"),
        ("data.workers", -2, "at least -1"),
        ("checkpoint_every", -1, "at least 0"),
        ("augment.cutout", -1, "at least 0"),
        ("augment.roll", -1, "at least 0"),
        ("augment.rotate", float("nan"), "a number that float32 can hold"),
        ("augment.mixup", -0.1, "at least 0"),
        ("augment.cutmix", -0.1, "at least 0"),
    ],
)
def test_what_cannot_be_is_named_with_what_can(key, value, allowed):
    config = default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as caught:
        check_config(config)
    message = str(caught.value)
    assert f"`config.{key}`" in message
    assert str(value) in message
    assert allowed in message


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        (
            "crop_area",
            (0.5,),
            "a smallest and a largest number, above 0 and at most 1, such as (0.08",
        ),
        ("crop_area", (0.1, 0.5, 1.0), "a smallest and a largest number"),
        ("crop_area", (0.5, 0.4), "above 0 and at most 1"),
        ("crop_area", (0.0, 1.0), "above 0 and at most 1"),
        ("crop_area", (0.5, 1.1), "above 0 and at most 1"),
        ("crop_ratio", (0.0, 1.0), "above 0, such as (0.75, 1.33"),
        ("crop_ratio", (2.0, 1.0), "above 0"),
        ("resize", 0.9, "at least 1"),
    ],
)
def test_how_images_are_cut(key, value, allowed):
    config = default_config()
    config.data.image_size = 32
    check_config(config)
    config.data[key] = value
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert f"`config.data.{key}` is {value}: it must be " in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"i2e": {"side": 64}}, r"`config\.data\.encoding` is '', so that nothing becomes events"),
        ({"data": {"encoding": "i2e"}, "timesteps": 9}, "I2E makes 8 ticks"),
        ({"data": {"encoding": "i2e"}, "teacher": "runs/x"}, "`config.teacher`, which is shown"),
        (
            {"data": {"encoding": "i2e"}, "activation": "relu", "loss": "mean_ce"},
            "`config.activation`=relu, an ordinary network",
        ),
        (
            {"data": {"bin_by": "duration"}},
            r"`config\.data\.bin_by` is duration, which is for .*shd",
        ),
        ({"data": {"name": "cifar10", "saturate": True}}, r"`config\.data\.saturate` is True"),
        ({"data": {"name": "shd", "bin_by": "time"}}, r"`config\.data\.bin_by` 'time'"),
    ],
)
def test_settings_of_events_that_do_not_go_together(changes, said):
    config = default_config()
    config.update(changes)
    with pytest.raises(UserError, match=said):
        check_config(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init_from": "runs/a"}, r"`config\.init_from` is 'runs/a', .*a policy.*init_weights"),
        ({"joint_epochs": 1}, r"joint_epochs` is 1, which does nothing here.*leave it at 0"),
        ({"policy": {"beta": 3.0}}, r"policy\.beta` is 3\.0, which does nothing here"),
        ({"training_levels": (1, 2)}, r"training_levels` is \(1, 2\), .*an ordinary network"),
        ({"model": {"largest_spike": 8}}, r"largest_spike` is 8, .*integer spikes"),
        ({"loss": "mean_ce", "tet_weight": 0.5}, r"tet_weight` is 0\.5, .*`config\.loss`=tet"),
        ({"optimizer": {"name": "adamw", "momentum": 0.5}}, r"momentum` is 0\.5, .*name`=sgd"),
        ({"random_timesteps": True, "timesteps": 1}, r"random_timesteps` is True, .*above 1"),
    ],
)
def test_settings_that_do_nothing(changes, said):
    config = default_config()
    config.update(changes)
    with pytest.raises(UserError, match=said):
        check_config(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("crop_area", (0.5, 1)),
        ("crop_ratio", (1, 1)),
        ("resize", 1),
        ("interpolation", "bicubic"),
    ],
)
def test_images_that_are_kept_as_they_are_are_not_cut(key, value):
    config = default_config()
    config.data[key] = value
    with pytest.raises(UserError, match=rf"data\.{key}` is .* and `config\.data\.image_size` is 0"):
        check_config(config)
    config.data.image_size = 32
    check_config(config)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("training_levels", (1, "a"), "has 'a': it must have whole numbers from 1"),
        ("training_levels", (1, 2.5), "has 2.5: it must have whole numbers"),
        ("training_levels", (0, 1), "has 0: it must have whole numbers from 1"),
        ("training_levels", (1, True), "has True: it must have whole numbers"),
        ("training_levels", (2**31,), "has 2147483648: it must have whole numbers"),
        ("training_levels", None, "is None: it must be several values in brackets"),
        ("policy.candidates", (1, "a"), "has 'a': it must have whole numbers"),
        ("policy.candidates", (1, 2.5), "has 2.5: it must have whole numbers"),
        ("policy.candidates", None, "is None: it must be several values"),
        ("data.crop_area", ("a", "b"), "has 'a': it must have a smallest and a largest number"),
        ("data.crop_area", (0.5, float("nan")), "has nan: it must have a smallest"),
        ("data.crop_ratio", (1.0, float("inf")), "has inf: it must have a smallest"),
        ("data.crop_ratio", (1.0, True), "has True: it must have a smallest"),
        ("data.resize", float("nan"), "a number that float32 can hold"),
        ("plugins", (1,), "has 1: it must have names of modules or files"),
        ("plugins", None, "is None: it must be several values"),
        ("timesteps", 10**20, "a whole number of at most 2,147,483,647"),
        ("timesteps", None, "is None: it must be a whole number"),
        ("checkpoint_every", 2**31, "a whole number of at most"),
        ("epochs", 10**7, "from 1 to 1,000,000"),
        ("data.workers", 10**6, "at most 1,000"),
        ("data.image_size", 10**5, "from 0 to 10,000"),
        ("data.dir", None, "is None: it must be a text"),
        ("augment.flip", None, "is None: it must be true or false"),
        ("augment.rotate", 1e300, "a number that float32 can hold"),
        ("optimizer.learning_rate", None, "a number that float32 can hold"),
    ],
)
def test_kinds_and_sizes(key, value, allowed):
    config = default_config()
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=r"^`config\.") as caught:
        check_config(config)
    assert f"`config.{key}` {'' if allowed[:3] in ('has', 'is ') else 'is '}" in str(caught.value)
    assert allowed in str(caught.value)


def test_an_ordinary_network_has_no_loss_over_timesteps():
    config = default_config()
    config.activation = "qcfs"
    with pytest.raises(
        UserError, match=r"`config\.loss` is 'tet'.*`config\.activation`=qcfs.*mean_ce"
    ):
        check_config(config)
    config.loss = "mean_ce"
    check_config(config)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("policy.candidates", (1, 5), r"candidate 5 of `config.policy.candidates` (1, 5)"),
        ("policy.candidates", (2, 2), "two or more different timesteps in ascending order"),
        ("policy.objective", "ppo", "expectation, reinforce"),
        ("policy.beta", -0.5, "at least 0"),
        ("policy.beta", float("inf"), "a number that float32 can hold"),
        ("policy.entropy", -0.1, "at least 0"),
        ("policy.width", 0, "at least 1"),
        ("policy.copies", 0, "from 1 to 10,000"),
        ("policy.joint_learning_rate", 0.0, "above 0"),
        ("joint_epochs", 31, "from 0 to `config.epochs` = 30"),
        ("augment.cutmix", 1.0, "0 for a policy"),
        ("data.image_size", 32, "0 for a policy"),
        ("ema", 0.9, "0 for a policy"),
        ("gradient", "last", "'bptt' for a policy"),
        ("random_timesteps", True, "False for a policy"),
    ],
)
def test_what_a_policy_cannot_have(key, value, allowed):
    config = default_config()
    config.policy.candidates = (1, 2, 4)
    check_config(config)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert key.split(".")[-1] in str(caught.value)
    assert allowed in str(caught.value)


def test_a_converted_network_is_not_trained_with_its_policy():
    config = default_config()
    config.update_from_flattened_dict(
        {"activation": "qcfs", "loss": "mean_ce", "policy.candidates": (1, 2), "joint_epochs": 1}
    )
    with pytest.raises(
        UserError, match=r"`config\.joint_epochs` is 1: .* 0 for a converted network"
    ):
        check_config(config)


def test_mixup_and_cutmix_exclude_each_other():
    config = default_config()
    config.augment.mixup = config.augment.cutmix = 1.0
    with pytest.raises(UserError, match=r"`config\.augment\.cutmix` is 1\.0: it must be 0"):
        check_config(config)


def test_an_augmentation_that_is_not_there_is_named():
    config = default_config()
    with config.unlocked():
        config.augment.noise = 0.1  # whose plugin is forgotten
    with pytest.raises(UserError, match=r"`config\.augment` 'noise': the known ones are autoaug"):
        check_config(config)


def test_only_tet_distils():
    config = default_config()
    config.loss, config.tet_distillation = "mean_ce", 0.5
    with pytest.raises(UserError, match=r"tet_distillation` is 0\.5: it must be 0 for .*'mean_ce'"):
        check_config(config)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"loss": "mean_ce"}, r"`config\.loss` is mean_ce: it must be 'tet' for `config.gradient`"),
        ({"tet_distillation": 0.5}, r"tet_distillation` is 0\.5: it must be 0 for `config.gradie"),
        ({"activation": "relu", "loss": "mean_ce"}, "gradient` is last: it must be 'bptt' for an "),
        (
            {"gradient": "bptt", "random_timesteps": True, "activation": "qcfs", "loss": "mean_ce"},
            "random_timesteps` is True: it must be False for an ordinary network",
        ),
    ],
)
def test_single_ticks_are_of_a_spiking_network_and_a_loss_of_each(changes, complaint):
    config = default_config()
    config.gradient = "last"
    check_config(config)
    config.update(changes)
    with pytest.raises(UserError, match=complaint):
        check_config(config)


def test_the_ends_of_what_is_allowed_are_allowed():
    config = default_config()
    config.update_from_flattened_dict(
        {
            "seed": 2**32 - 1,
            "data.validation": 0.5,
            "timesteps": 1,
            "inherit_epochs": 30,
            "model.tau": 1.0,
            "tet_weight": 1.0,
            "optimizer.momentum": 0.0,
            "optimizer.nesterov": False,
        }
    )
    check_config(config)


@pytest.mark.parametrize("name", ["crop", "cutout", "roll"])
def test_an_augmentation_that_images_are_too_small_for(name):
    config = default_config()
    config.augment[name] = 7
    open_data(config)
    config.augment[name] = 8
    with pytest.raises(
        UserError, match=rf"`config\.augment\.{name}` is 8, .* of 8 x 8 pixels: .* 7"
    ):
        open_data(config)
