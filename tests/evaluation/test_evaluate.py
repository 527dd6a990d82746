"""The validation split chooses, the asked split is reported, however the exits are run."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.data import normalize
from seenn_jax.engine import spread
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits import Given, Risk, Target, Tolerance
from seenn_jax.exits.rules import Answers, Score
from seenn_jax.run import build, checkpoints, folder
from seenn_jax.run.checkpoints import load_model
from tests.evaluation.conftest import T
from tests.evaluation.plain import at_exit
from tests.models.networks import logits_of
from tests.run.untrained import untrained

# --- The threshold ---------------------------------------------------------------------------


@pytest.mark.parametrize("exit", ["confidence", "entropy", "patience"])
def test_the_chosen_threshold_is_the_best_on_the_validation_split(evaluated, cached, exit):
    scores, correct = cached["validation"]
    scores = scores[exit]
    candidates = np.unique(np.append(scores, [0, 1]).astype(scores.dtype))
    tried = [at_exit(scores, correct, threshold) for threshold in candidates]
    full = correct[:, -1].mean()
    best = min(times.mean() for accuracy, times in tried if accuracy >= full - 0.001)

    result = evaluated(exit)
    threshold = np.float32(result["threshold"]) - (exit == "patience")
    accuracy, times = at_exit(scores, correct, threshold)
    assert times.mean() == best
    assert accuracy >= full - 0.001
    assert "validation split (150 images)" in result["threshold_rule"]
    assert "0.1 point" in result["threshold_rule"]


@pytest.fixture(scope="module")
def chosen(cumulative, cached, dataset):
    """`choice -> (threshold, rule, guarantee, accuracy, exit times)` on the validation split."""
    split, logits = dataset.validation, cumulative["validation"]
    scores, correct = cached["validation"]
    answers = Answers(split.images, split.labels, logits, logits.argmax(-1), correct)
    rule = Score("confidence", exits.confidence)
    signal = rule.signal(answers)
    np.testing.assert_array_equal(signal, scores["confidence"])

    def choose(choice=rule.default, correct=correct):
        found = rule.choose(choice, signal, answers._replace(correct=correct))
        return *found, *at_exit(signal, correct, np.float32(found.value))

    return choose


def test_more_tolerance_is_fewer_timesteps(chosen, cumulative, evaluated):
    assert chosen()[0] == evaluated()["threshold"]
    answers = cumulative["validation"].argmax(-1)
    correct = answers == answers[:, -1:]  # as if those at T were all right
    *_, strict = chosen(correct=correct)
    _, rule, _, accuracy, loose = chosen(Tolerance(0.05), correct)
    assert accuracy >= 0.95
    assert loose.mean() < strict.mean()
    assert "5 point" in rule


def test_a_target_of_timesteps_is_met_on_the_validation_split(chosen):
    _, rule, _, _, times = chosen(Target(2.0))
    assert 1.9 < times.mean() <= 2.0
    assert "at most 2 timesteps" in rule


def test_a_risk_is_guaranteed_on_the_validation_split(chosen, cached):
    _, correct = cached["validation"]
    threshold, rule, guarantee, _, times = chosen(Risk(0.1, loss="accuracy"))
    assert threshold == guarantee["threshold"]
    assert (guarantee["n"], guarantee["eps"], guarantee["delta"]) == (150, 0.1, 0.1)
    assert guarantee["average_timesteps"] == pytest.approx(times.mean())
    at = correct[np.arange(150), times - 1]
    assert guarantee["empirical_risk"] == pytest.approx((correct[:, -1] & ~at).mean())
    assert "accuracy risk at most eps = 0.1 with probability 0.9" in rule


def test_a_given_threshold_is_used_as_it_is(evaluated, cached):
    scores, correct = cached["test"]
    result = evaluated(choice=Given(0.4))
    assert result["threshold"] == 0.4
    assert result["threshold_rule"] == "as given"
    accuracy, times = at_exit(scores["confidence"], correct, np.float32(0.4))
    assert 1 < times.mean() < T
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert result["average_timesteps"] == pytest.approx(times.mean(), abs=1e-6)


def test_temperatures_are_fitted_on_the_validation_split(evaluated, cumulative, cached, dataset):
    result = evaluated(choice=Given(0.4), temperature=True)
    expected = exits.fit_temperatures(cumulative["validation"], dataset.validation.labels)
    assert result["temperatures"] == pytest.approx(np.asarray(expected).tolist(), rel=1e-4)
    assert evaluated()["temperatures"] is None
    scores = np.array(exits.confidence(cumulative["test"] / np.float32(expected)[:, None]))
    accuracy, times = at_exit(scores, cached["test"][1], np.float32(0.4))
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert result["average_timesteps"] == pytest.approx(times.mean(), abs=1e-6)


# --- How it is run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [{"slots": 360}, {"method": "masked"}, {"method": "full", "slots": 50}],
    ids=str,
)
def test_the_figures_depend_neither_on_the_slots_nor_on_the_method(evaluated, arguments):
    """The split's 360 images are divided by 360 and not by 256, the default, nor by 50."""
    result, other = evaluated(), evaluated(**arguments)
    assert other.items() >= arguments.items()
    differing = {key for key in result if result[key] != other[key]}
    # The revision: someone may commit while the tests run.
    assert differing <= {"slots", "method", "images_per_second", "revision"}


def test_the_slots_are_no_more_than_a_small_split_has_images(evaluated):
    assert evaluated()["slots"] == 256
    small = evaluated(split="validation")
    assert small["slots"] == small["num_samples"] == 150
    # The rule holds on the split that it was chosen on.
    assert small["accuracy"] >= small["static_accuracy"][-1] - 0.001


def test_the_best_checkpoint_and_its_average_are_evaluated(evaluated, trained):
    config, facts = folder.load(trained)
    model, step = load_model(trained, config, facts)
    assert step == checkpoints.best_step(trained)
    names = [f"{kind}.head.kernel" for kind in ("average.0", "params")]
    shapes = {name: jax.ShapeDtypeStruct((16, 10), np.float32) for name in names}
    average, params = checkpoints.restore(trained, step, shapes).values()
    assert evaluated()["checkpoint_step"] == step
    np.testing.assert_array_equal(model.head.kernel[...], average)
    assert not np.array_equal(average, params)


def test_an_evaluation_changes_nothing_in_the_run(trained, evaluated, contents, tmp_path, caplog):
    workdir = shutil.copytree(trained, tmp_path / "run")
    (workdir / "checkpoints" / "999.orbax-checkpoint-tmp").mkdir()
    before = contents(workdir)
    result = evaluate(workdir)
    assert contents(workdir) == before
    assert caplog.text == ""
    assert result["accuracy"] == evaluated()["accuracy"]


def test_streamed_data_are_evaluated_chunk_by_chunk(trained_on_imagenet, monkeypatch):
    monkeypatch.setattr(spread, "CHUNK_BYTES", 3 * 8 * 8 * 3)  # three images
    details = []
    found = evaluate(trained_on_imagenet, choice=Target(1.5), details=details.append)
    config, facts = folder.load(trained_on_imagenet)
    dataset = build.dataset(config)
    model, _ = load_model(trained_on_imagenet, config, facts)
    images = jnp.asarray(dataset.test.images[:])
    inputs = normalize(images, *facts.normalization, dtype="float32")
    logits = logits_of(model, inputs, 2)
    correct = exits.accumulate(logits).argmax(-1) == dataset.test.labels[:, None]
    assert found["static_accuracy"] == pytest.approx(correct.mean(0).tolist())
    assert found["num_samples"] == 8
    assert found["share_of_answers_that_differ"] == found["share_of_exit_times_that_differ"] == 0
    assert "validation split (8 images)" in found["threshold_rule"]
    shown = np.stack([example.image for example in details[0].examples["easiest"]])
    assert sorted(shown.sum((1, 2, 3))) == sorted(np.asarray(images, int).sum((1, 2, 3)))


def test_one_timestep_leaves_nothing_to_decide(trained, make_config, tmp_path):
    config, facts = make_config(timesteps=1, inherit_epochs=0, ema=0.0), folder.load(trained)[1]
    result = evaluate(untrained(tmp_path, config, facts), slots=60)  # too few for a second loop
    assert result["exit_shares"] == [1]
    assert result["average_timesteps"] == result["aet"] == result["oracle_aet"] == 1
    assert [row["threshold"] for row in result["sweep"]] == [0, 1]
    assert result["accuracy"] == pytest.approx(result["static_accuracy"][0])


def test_any_number_of_timesteps(evaluated):
    result = evaluated("full", method="full", timesteps=5)
    assert result["timesteps"] == len(result["exit_shares"]) == 5
    assert result["static_accuracy"][:T] == pytest.approx(evaluated("full")["static_accuracy"])
    assert result["network"] == "spiking"


# --- A policy --------------------------------------------------------------------------------


def test_a_price_is_chosen_for_a_target_on_the_validation_split(trained_policy):
    choice = Target(1.8)
    result = evaluate(trained_policy, exit="policy", choice=choice, split="validation")
    assert 1.6 < result["average_timesteps"] <= 1.8 + 1e-6
    assert "at most 1.8 timesteps" in result["threshold_rule"]
    masked = evaluate(
        trained_policy, exit="policy", choice=choice, split="validation", method="masked"
    )
    assert masked["accuracy"] == result["accuracy"]
    assert masked["exit_shares"] == result["exit_shares"]


def test_a_policy_s_network_exits_by_confidence_too(trained_policy, by_policy):
    result = evaluate(trained_policy, exit="full")
    assert result["static_accuracy"] == pytest.approx(by_policy[1].mean(0).tolist())
    assert result["policy"] is None


def test_a_policy_that_is_not_there_or_cannot_choose(trained, trained_policy):
    for workdir, arguments, match in [
        (trained, {}, "exit 'policy' needs a run with a policy, and .*tiny has none: train one"),
        (trained_policy, {"timesteps": 2}, r"`timesteps` is 2 and the policy may choose up to 3"),
        (trained_policy, {"choice": Risk(0.1)}, "exit 'policy' has no grid of thresholds"),
        (trained_policy, {"choice": Tolerance(0.01)}, r"`tolerance`=0\.01 has no meaning for exit"),
        (trained_policy, {"choice": Given(float("inf"))}, "inf is no price"),
    ]:
        with pytest.raises(UserError, match=match):
            evaluate(workdir, exit="policy", **arguments)


# --- Mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"exit": "confidense"}, r"unknown exit 'confidense': .*did you mean 'confidence'"),
        ({"split": "dev"}, r"unknown split 'dev': the known ones are test, train, validation"),
        ({"method": "slot"}, r"unknown method 'slot': .*did you mean 'slots'"),
        ({"choice": Given(1.5)}, r"threshold 1\.5 is outside \[0, 1\]"),
        ({"choice": Given(-0.1)}, r"threshold -0\.1 is outside \[0, 1\]"),
        ({"choice": Given(float("nan"))}, r"threshold nan is outside \[0, 1\]"),
        ({"choice": Given(0.5), "exit": "full"}, r"`threshold`=0\.5 has no meaning"),
        ({"choice": Tolerance(0.5), "exit": "full"}, r"`tolerance`=0\.5 has no meaning"),
        ({"choice": Given(4), "exit": "patience"}, r"from 1 to T = 3"),
        ({"choice": Given(1.5), "exit": "patience"}, r"`threshold`=1\.5 is no patience"),
        ({"choice": Tolerance(1.0)}, r"`tolerance` is 1\.0"),
        ({"choice": Risk(0.1), "exit": "patience"}, r"no grid of thresholds for `risk`"),
        ({"slots": 361}, r"`slots` is 361 and the test split has 360 images"),
        ({"choice": Risk(0.2), "temperature": True}, r"and would void it: leave one of them out"),
        ({"slots": 0}, r"`slots` is 0 and the test split has 360 images"),
        ({"slots": 151, "split": "validation"}, r"the validation split has 150 images"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_is_named(trained, contents, arguments, match):
    before = contents(trained)
    with pytest.raises(UserError, match=match):
        evaluate(trained, **arguments)
    assert contents(trained) == before


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"choice": lambda: 0.9}, r"`choice` is 0\.9: give Given\(0\.9\), Target"),
        ({"choice": lambda: Given("0.9")}, r"`threshold` is '0\.9': it must be a number"),
        ({"timesteps": lambda: 2.5}, r"`timesteps` is 2\.5: it must be a whole number"),
        ({"slots": lambda: 2.5}, r"`slots` is 2\.5 and"),
    ],
    ids=["no choice", "no number", "timesteps", "slots"],
)
def test_an_argument_of_another_type_is_named(trained, arguments, match):
    with pytest.raises(UserError, match=match):
        evaluate(trained, **{name: make() for name, make in arguments.items()})


# --- Event data ------------------------------------------------------------------------------


def test_every_method_gives_the_same_on_event_data(on_events):
    workdir, _ = on_events
    slots, masked = (
        evaluate(workdir, choice=Target(2.0), method=method, slots=4)
        for method in ("slots", "masked")
    )
    for result in (slots, masked):
        # Of all T ticks at once, that is.
        assert result["share_of_exit_times_that_differ"] == 0
        assert result["share_of_answers_that_differ"] == 0
    assert slots["num_samples"] == 10
    assert len(set(slots["exit_shares"])) > 1
    for name in ("accuracy", "average_timesteps", "exit_shares", "threshold"):
        assert slots[name] == masked[name]
    # Fewer timesteps are the first frames.
    part = evaluate(workdir, exit="full", timesteps=2)
    assert part["static_accuracy"] == slots["static_accuracy"][:2]
    with pytest.raises(UserError, match=r"`timesteps` is 4 and cifar10_dvs .* 3 frames"):
        evaluate(workdir, timesteps=4)
