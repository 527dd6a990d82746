"""The exits by name: their choices, times and sweeps by hand, and what they refuse."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.engine import replay
from seenn_jax.errors import UserError
from seenn_jax.exits import EXITS, SCORES, Answers, Given, Rising, Risk, Target, Tolerance
from seenn_jax.exits.rules import Full, Patience, Policy, Score

# As in test_thresholds.py: from 0.6 to 0.7 times are 1, 2, 1, 3, from 0.7 to 0.8 1, 2, 2, 3.
SIGNAL = np.array([[0.9, 1, 1], [0.6, 0.95, 1], [0.7, 0.8, 1], [0.5, 0.6, 1]], np.float32)
CORRECT = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]], bool)


def answers(predictions, labels):
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    cumulative = np.eye(3, dtype=np.float32)[predictions]
    correct = predictions == labels[:, None]
    return Answers(np.zeros((len(labels), 2, 2, 1)), labels, cumulative, predictions, correct)


FOUR = answers(np.where(CORRECT, 0, 1), np.zeros(4, int))


class Known(Rising):
    name = "known"

    def signal(self, answers):
        return SIGNAL

    def criterion(self, value, params, images):
        known = jnp.asarray(SIGNAL)
        return exits.Criterion((), lambda memory, z, t, i: (memory, known[i, t - 1] > value))


# --- A signal that exceeds a value ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "value", "rule"),
    [
        (Given(0.7), 0.7, "as given"),
        (Tolerance(0.0), 0.65, r"validation split \(4 images\): the fewest .* 0 point .* T = 3"),
        (Tolerance(0.5), 0.25, r"within 50 point of its accuracy"),
        (Target(2.0), 0.75, r"\(4 images\): at most 2 timesteps on average there"),
    ],
    ids=str,
)
def test_a_value_is_chosen_by_hand(choice, value, rule):
    chosen = Known().choose(choice, SIGNAL, FOUR)
    assert chosen.value == pytest.approx(value)
    assert chosen.guarantee is None
    assert_says(chosen.rule, rule)


def assert_says(sentence, pattern):
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(sentence)


def test_a_value_with_a_guarantee_by_hand():
    # Of four, one loss passes eps = 1/2 (5/16), two don't (11/16): from 0.6 on nobody loses.
    chosen = Known().choose(Risk(0.5, 0.5), SIGNAL, FOUR)
    assert 0.6 <= chosen.value < 0.7
    assert_says(chosen.rule, r"disagreement risk at most eps = 0\.5 with probability 0\.5 .*: cert")
    assert chosen.guarantee["certified"]
    assert chosen.guarantee["p_value"] == pytest.approx(1 / 16)
    # Two lose by leaving at once.
    chosen = Known().choose(Risk(0.5, 0.5, "accuracy"), np.ones_like(SIGNAL), FOUR)
    assert chosen.value == 1
    assert_says(chosen.rule, r"accuracy risk .*: none below 1 could be certified, so all T run")
    assert not chosen.guarantee["certified"]


def test_a_choice_on_few_images_is_warned_of(caplog):
    Known().choose(Target(2), SIGNAL, FOUR)
    Known().choose(Given(0.5), None, None)
    assert caplog.text == ""
    Known().choose(Tolerance(), SIGNAL, FOUR)
    (said,) = caplog.messages
    assert said.startswith("4 validation images are too few")


def test_its_times_are_the_same_in_advance_and_tick_by_tick():
    exit = Known()
    for value, times in {0.65: [1, 2, 1, 3], 0.75: [1, 2, 2, 3], 1.0: [3, 3, 3, 3]}.items():
        np.testing.assert_array_equal(exit.times(SIGNAL, value), times)
        criterion = exit.criterion(value, exit.params, FOUR.images)
        np.testing.assert_array_equal(replay(jnp.zeros((4, 3, 2)), criterion).timesteps, times)


def test_its_sweep_goes_from_one_timestep_to_all():
    rows = Known().sweep(SIGNAL, CORRECT)
    assert rows[0] == {"threshold": 0, "accuracy": 0.5, "average_timesteps": 1}
    assert rows[-1] == {"threshold": 1, "accuracy": 1, "average_timesteps": 3}
    for row in rows:
        times = exits.exit_times(SIGNAL, row["threshold"])
        assert row["average_timesteps"] == pytest.approx(float(times.mean()))
        assert row["accuracy"] == pytest.approx(float(exits.at_exit(CORRECT, times).mean()))
    # Every outcome that a threshold can have is among them.
    assert {row["average_timesteps"] for row in rows} == {1, 1.25, 1.75, 2, 2.25, 2.5, 2.75, 3}
    one = Known().sweep(SIGNAL[:, :1], CORRECT[:, :1])
    assert [row["threshold"] for row in one] == [0, 1]


def test_what_a_rising_exit_refuses():
    exit = Known()
    assert exit.default == Tolerance()
    assert exit.about(FOUR, np.ones(4, int)) is None
    for choice in (None, Given(7), Target(2), Risk(0.1), Tolerance(0)):
        exit.check(choice, 3)
    for value in (1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match=rf"`tolerance` is {value}: .*from 0 to below 1"):
            exit.check(Tolerance(value), 3)

    class Particular(Known):
        def check_value(self, value, timesteps):
            raise UserError(f"{value} of {timesteps}")

    with pytest.raises(UserError, match="7 of 3"):
        Particular().check(Given(7), 3)
    Particular().check(Target(2), 3)


# --- Scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORES)
def test_a_score_looks_at_cumulative_logits(name):
    exit = EXITS[name](None)
    assert (exit.name, exit.knob, exit.default) == (name, "threshold", Tolerance())
    np.testing.assert_array_equal(exit.signal(FOUR), SCORES[name](FOUR.cumulative))
    for value in (-0.1, 1.5, 90, float("nan")):
        with pytest.raises(UserError, match=rf"threshold {value} is outside \[0, 1\]"):
            exit.check(Given(value), 3)
    for choice in (Given(0), Given(1.0), Target(1.5), Risk(0.02), None):
        exit.check(choice, 3)


def test_a_score_s_criterion_rounds_the_threshold_as_exit_times_do():
    exit = Score("first", lambda z: z[..., 0])
    rounded = np.float32(0.1)
    assert float(rounded) > 0.1
    logits = np.array([[[rounded, 0], [0, 0]], [[0.11, 0], [0, 0]]], np.float32)
    np.testing.assert_array_equal(exit.times(logits[..., 0], 0.1), [2, 1])
    found = replay(jnp.asarray(logits), exit.criterion(0.1, (), None))
    np.testing.assert_array_equal(found.timesteps, [2, 1])


# --- Patience ------------------------------------------------------------------------------------

# One in a row: times 1, 1, 1, one right; two: 2, 3, 2, two right; three: 3, 4, 4, all right.
STREAKS = answers([[0, 0, 0, 0], [1, 2, 2, 2], [1, 1, 2, 2]], [0, 2, 2])
PATIENT = {1: [1, 1, 1], 2: [2, 3, 2], 3: [3, 4, 4], 4: [4, 4, 4]}


def test_patience_by_hand():
    exit = Patience()
    assert (exit.name, exit.knob, exit.default) == ("patience", "patience", Tolerance())
    signal = exit.signal(STREAKS)
    for choice, value in {
        Given(2): 2,
        Tolerance(0.0): 3,
        Tolerance(0.4): 2,
        Tolerance(0.7): 1,
        Target(2.5): 2,
    }.items():
        assert exit.choose(choice, signal, STREAKS).value == value
    # Logits that sum to those of the answers.
    logits = np.diff(STREAKS.cumulative, axis=1, prepend=np.float32(0))
    for value, times in PATIENT.items():
        np.testing.assert_array_equal(exit.times(signal, value), times)
        found = replay(jnp.asarray(logits), exit.criterion(value, (), None))
        np.testing.assert_array_equal(found.timesteps, times)
    rows = exit.sweep(signal, STREAKS.correct)
    assert [row["threshold"] for row in rows] == [1, 2, 3, 4]
    averages = [np.mean(times) for times in PATIENT.values()]
    assert [row["average_timesteps"] for row in rows] == pytest.approx(averages)
    assert [row["accuracy"] for row in rows] == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_what_patience_refuses():
    exit = Patience()
    for value in (0, 5, 1.5, float("nan")):
        with pytest.raises(UserError, match=rf"`threshold`={value} is no patience: .* to T = 4"):
            exit.check(Given(value), 4)
    with pytest.raises(UserError, match=r"'patience' has no grid .*`risk`: choose one of confid"):
        exit.check(Risk(0.02), 4)
    with pytest.raises(UserError, match=r"`tolerance` is 1\.0"):
        exit.check(Tolerance(1.0), 4)
    for choice in (None, Given(1), Given(4.0), Target(2), Tolerance(0)):
        exit.check(choice, 4)


# --- No exit -------------------------------------------------------------------------------------


def test_full_runs_all_and_takes_no_value():
    exit = EXITS["full"](None)
    assert isinstance(exit, Full)
    assert exit.default is None
    exit.check(None, 4)
    assert exit.signal(FOUR) is None
    assert exit.choose(None, None, None) == (None, "every sample runs all timesteps", None)
    assert exit.times(None, None) is None
    assert exit.sweep(None, CORRECT) == []
    assert exit.about(FOUR, None) is None
    found = replay(jnp.zeros((4, 3, 2)), exit.criterion(None, (), None))
    np.testing.assert_array_equal(found.timesteps, [3] * 4)
    for choice in (Given(0.5), Target(2), Risk(0.5), Tolerance(0.5)):
        message = rf"`{choice.setting}`={choice.value} has no meaning for exit 'full', .*confidence"
        with pytest.raises(UserError, match=message):
            exit.check(choice, 4)


# --- A policy ------------------------------------------------------------------------------------

# Differences of 1, -2, 1 and 0.5 for two timesteps more: equal at prices of half of them.
CHOICES = np.array([[0, 1], [2, 0], [0, 1], [0, 0.5]], np.float32)


def policy(choices=CHOICES):
    settings = SimpleNamespace(candidates=(1, 3), beta=0.5)
    return Policy(
        SimpleNamespace(
            config=SimpleNamespace(policy=settings),
            policy_params={"a": jnp.float32(2)},
            policy_choices=lambda images: choices,
            policy_logits=lambda params, images: params["a"] * images,
            policy_macs=lambda: 7,
            macs=lambda: 9,
        )
    )


def test_a_policy_by_hand():
    exit = policy()
    assert (exit.name, exit.knob, exit.default) == ("policy", "price", Given(0.0))
    signal = exit.signal(FOUR)
    for choice, value, rule in (
        (Given(0.0), 0, "the most probable candidate of the policy"),
        (Given(0.3), 0.3, "as given"),
        # At most half of them may run three timesteps: the price is halfway from 0.25 to 0.5.
        (Target(2), 0.375, r"\(4 images\): at most 2 timesteps on average there"),
    ):
        chosen = exit.choose(choice, signal, None)
        assert chosen.value == pytest.approx(value)
        assert_says(chosen.rule, rule)
    for price, times in {0.0: [3, 1, 3, 3], 0.3: [3, 1, 3, 1], 0.6: [1] * 4, -1.5: [3] * 4}.items():
        np.testing.assert_array_equal(exit.times(signal, price), times)
        # Twice as large by its parameters as what it is shown.
        criterion = exit.criterion(price, exit.params, jnp.asarray(CHOICES / 2))
        np.testing.assert_array_equal(replay(jnp.zeros((4, 3, 2)), criterion).timesteps, times)
    rows = exit.sweep(signal, CORRECT)
    points = {(row["average_timesteps"], row["accuracy"]) for row in rows}
    # From all at once, half of them right, to all at T; the second image is the last to stay.
    assert points == {(1, 0.5), (2, 0.5), (2.5, 0.75), (3, 1)}
    assert 0 in {row["threshold"] for row in rows}


def test_what_is_said_of_a_policy():
    exit = policy()
    about = exit.about(FOUR, np.array([3, 1, 3, 3]))
    assert (about["candidates"], about["beta"]) == ([1, 3], 0.5)
    assert (about["macs"], about["network_macs"]) == (7, 9)
    assert about["collapsed_to"] is None
    assert about["confidence"]["average_timesteps"] <= 2.5
    assert len(about["confidence"]["sweep"]) > 1
    assert exit.about(FOUR, np.array([3, 3, 3, 3]))["collapsed_to"] == 3


def test_what_a_policy_refuses():
    exit = policy()
    for choice in (None, Given(0.3), Given(-2), Target(2)):
        exit.check(choice, 3)
    with pytest.raises(UserError, match=r"'policy' has no grid of thresholds for `risk`"):
        exit.check(Risk(0.02), 3)
    with pytest.raises(UserError, match=r"`tolerance`=0\.1 has no meaning .*`target_timesteps`"):
        exit.check(Tolerance(0.1), 3)
    for value in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=rf"`threshold`={value} is no price of a timestep"):
            exit.check(Given(value), 3)
    with pytest.raises(UserError, match=r"`timesteps` is 2 and the policy may choose up to 3"):
        exit.check(Given(0.0), 2)


# --- By name -------------------------------------------------------------------------------------


def test_every_exit_has_its_name():
    assert list(EXITS) == [*SCORES, "patience", "policy", "full"]
    run = policy().run
    assert [EXITS[name](run).name for name in EXITS] == list(EXITS)
    with pytest.raises(UserError, match=r"unknown exit 'confidense': .*did you mean 'confidence'"):
        EXITS["confidense"]
