"""Thresholds chosen on a validation split: the best there are, and the guarantee by experiment."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax import exits
from seenn_jax.errors import UserError
from seenn_jax.exits.thresholds import (
    GUARANTEE_GRID,
    threshold_for_accuracy,
    threshold_for_timesteps,
    threshold_with_guarantee,
)
from seenn_jax.run.inference import load

PROPERTY = settings(deadline=None, max_examples=25)


@st.composite
def splits(draw):
    """Scores and correctness [N, T]; scores often tie, also at exactly 0 and 1."""
    n, steps = draw(st.sampled_from([(1, 1), (6, 4), (30, 3)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 1000]))
    scores = (rng.integers(0, levels, (n, steps)) / (levels - 1)).astype(np.float32)
    return scores, rng.random((n, steps)) < draw(st.sampled_from([0.3, 0.9]))


def outcome(scores, correct, threshold):
    """Number right and average timesteps by the exit rule itself."""
    times = exits.exit_times(scores, threshold)
    return int(exits.at_exit(correct, times).sum()), float(times.mean())


def every_outcome(scores, correct):
    return [outcome(scores, correct, t) for t in np.append(np.unique(scores), [0, 1])]


# --- For a loss of accuracy, for a number of timesteps --------------------------------------------


SCORES = np.array([[0.9, 1, 1], [0.6, 0.95, 1], [0.7, 0.8, 1], [0.5, 0.6, 1]], np.float32)
CORRECT = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]], bool)
# By hand: threshold in [0.9, 0.95): times 2, 2, 3, 3, all right; [0.8, 0.9): 1, 2, 3, 3, all
# right; [0.7, 0.8): 1, 2, 2, 3, all right; [0.6, 0.7): 1, 2, 1, 3, all right; [0.5, 0.6):
# 1, 1, 1, 2: samples 1 and 3 wrong.


def test_threshold_for_accuracy_by_hand():
    threshold = threshold_for_accuracy(SCORES, CORRECT, tolerance=0)
    assert threshold == pytest.approx(0.65)  # halfway from 0.6 to 0.7, which do the same
    assert outcome(SCORES, CORRECT, threshold) == (4, 7 / 4)
    threshold = threshold_for_accuracy(SCORES, CORRECT, tolerance=0.5)
    assert outcome(SCORES, CORRECT, threshold) == (2, 1)


def test_threshold_is_one_where_every_exit_costs():
    correct = np.array([[False, False, True]] * 4)
    assert threshold_for_accuracy(SCORES, correct) == 1


def test_a_tolerance_counts_whole_samples():
    # 0.29 * 100 is 28.999999999999996 in floating point, and allows 29 losses.
    scores = np.full((100, 2), 0.5, np.float32)
    correct = np.array([[False, True]] * 29 + [[True, True]] * 71)
    assert threshold_for_accuracy(scores, correct, 0.29) == 0.25
    assert threshold_for_accuracy(scores, correct, 0.28) == 1


def test_scores_that_saturate_at_one_leave_apart_from_the_next_below():
    near = np.nextafter(np.float32(1), np.float32(0))
    scores = np.array([[1, 1], [near, 1]], np.float32)
    correct = np.array([[True, True], [False, True]])
    threshold = threshold_for_accuracy(scores, correct, 0)
    np.testing.assert_array_equal(exits.exit_times(scores, threshold), [1, 2])
    # The same, where scores come from logits.
    z = jnp.array([[50.0, 0, 0], [16.0, 0, 0]])
    scores = jnp.stack([exits.confidence(z), jnp.ones(2)], axis=1)
    assert scores[0, 0] == 1 > scores[1, 0]
    assert outcome(scores, correct, threshold_for_accuracy(scores, correct, 0)) == (
        2,
        1.5,
    )


@PROPERTY
@given(splits(), st.sampled_from([0.0, 0.001, 0.1, 1.0]))
def test_threshold_for_accuracy_is_the_best_there_is(split, tolerance):
    scores, correct = split
    got = outcome(scores, correct, threshold_for_accuracy(scores, correct, tolerance))
    least = correct[:, -1].sum() - math.floor(tolerance * len(scores) + 1e-9)
    assert got[0] >= least
    assert got[1] == min(average for right, average in every_outcome(*split) if right >= least)


def test_no_sample_decides_by_its_own_score():
    rng = np.random.default_rng(0)
    scores = rng.random((50, 3), np.float32)
    correct = rng.random((50, 3)) < 0.7
    for threshold in (
        threshold_for_accuracy(scores, correct, 0.3),
        threshold_for_timesteps(scores, 1.5),
    ):
        assert 0 < threshold < 1
        assert np.abs(scores - threshold).min() > 1e-6


def test_threshold_for_timesteps_by_hand():
    for target, average in {1.0: 1, 1.25: 1.25, 1.8: 1.75, 2.0: 2, 2.9: 2.75, 3.0: 3}.items():
        threshold = threshold_for_timesteps(SCORES, target)
        assert outcome(SCORES, CORRECT, threshold)[1] == average
    assert threshold_for_timesteps(SCORES, 3.0) == 1


@PROPERTY
@given(splits(), st.floats(0, 1))
def test_threshold_for_timesteps_is_the_best_there_is(split, fraction):
    scores, correct = split
    target = 1 + fraction * (scores.shape[1] - 1)
    reachable = [a for _, a in every_outcome(*split) if a <= target + 1e-6]
    if reachable:
        threshold = threshold_for_timesteps(scores, target)
        assert outcome(scores, correct, threshold)[1] == max(reachable)
    else:
        with pytest.raises(UserError, match="threshold 0 already takes"):
            threshold_for_timesteps(scores, target)


def test_patience_can_be_calibrated():
    predictions = jnp.array([[0, 0, 0, 0], [1, 2, 2, 2], [1, 1, 2, 2]])
    correct = predictions == jnp.array([0, 2, 2])[:, None]
    # One in a row: times 1, 1, 1, one right; two: 2, 3, 2, two right; three: 3, 4, 4, all right.
    for tolerance, times in {0: [3, 4, 4], 0.4: [2, 3, 2], 0.7: [1, 1, 1]}.items():
        threshold = threshold_for_accuracy(exits.streaks(predictions), correct, tolerance)
        np.testing.assert_array_equal(
            exits.exit_times(exits.streaks(predictions), threshold), times
        )


@pytest.mark.parametrize("target", [0.9, 3.1, float("nan")])
def test_targets_outside_one_to_t(target):
    with pytest.raises(UserError, match=rf"{target} timesteps .*\[1, 3\]"):
        threshold_for_timesteps(SCORES, target)


def test_bad_input_for_thresholds():
    with pytest.raises(UserError, match=r"tolerance -0\.1"):
        threshold_for_accuracy(SCORES, CORRECT, -0.1)
    with pytest.raises(UserError, match="0 samples"):
        threshold_for_accuracy(SCORES[:0], CORRECT[:0])
    broken = SCORES.copy()
    broken[2, 1] = np.nan
    for choose in (
        lambda: threshold_for_accuracy(broken, CORRECT),
        lambda: threshold_for_timesteps(broken, 2),
    ):
        with pytest.raises(UserError, match="sample 2 "):
            choose()


# --- With a guarantee -----------------------------------------------------------------------------


def with_losses(n, losses):
    """n samples that all exit at t = 1 of 2 below threshold 0.9; `losses` of them disagree then."""
    scores = np.full((n, 2), 0.9, np.float32)
    predictions = np.zeros((n, 2), int)
    predictions[:losses, 0] = 1
    return scores, predictions


@pytest.mark.parametrize(("eps", "losses"), [(0.005, 18), (0.01, 40)])
def test_most_losses_that_pass_among_5000(eps, losses):
    grid = np.array([1.0, 0.5])
    passes = threshold_with_guarantee(*with_losses(5000, losses), eps, grid=grid)
    assert passes.certified
    assert passes.threshold == 0.5
    assert passes.average_timesteps == 1
    assert passes.empirical_risk == losses / 5000
    assert passes.p_value <= 0.1
    assert (passes.eps, passes.delta, passes.n) == (eps, 0.1, 5000)
    fails = threshold_with_guarantee(*with_losses(5000, losses + 1), eps, grid=grid)
    assert not fails.certified
    assert (fails.threshold, fails.average_timesteps, fails.empirical_risk) == (1, 2, 0)
    assert fails.p_value == pytest.approx((1 - eps) ** 5000, rel=1e-6)


def test_the_walk_stops_at_the_first_failure():
    # Threshold 0.6 loses 50 of 500 (exits at t = 1), 0.2 would lose none: too late.
    scores = np.array([[0.7, 0.9, 0.9]] * 50 + [[0.95, 0.95, 0.95]] * 450, np.float32)
    predictions = np.array([[1, 0, 0]] * 50 + [[0, 0, 0]] * 450)
    grid = np.array([1, 0.92, 0.8, 0.6, 0.2])
    got = threshold_with_guarantee(scores, predictions, 0.02, grid=grid)
    assert got.threshold == np.float32(0.8)  # the one before the failing one
    assert got.average_timesteps == (50 * 2 + 450) / 500


def test_losses_of_accuracy_do_not_count_samples_wrong_at_all_timesteps():
    scores, predictions = with_losses(1000, 500)
    labels = np.ones(1000, int)  # wrong at T everywhere: nothing to lose
    grid = np.array([1.0, 0.5])
    got = threshold_with_guarantee(
        scores, predictions, 0.01, loss="accuracy", labels=labels, grid=grid
    )
    assert (got.certified, got.empirical_risk, got.loss) == (True, 0, "accuracy")
    labels[:20] = 0  # these are right at T and wrong at the exit
    got = threshold_with_guarantee(
        scores, predictions, 0.05, loss="accuracy", labels=labels, grid=grid
    )
    assert got.empirical_risk == 0.02
    assert not threshold_with_guarantee(scores, predictions, 0.05, grid=grid).certified


def test_the_fewest_samples_that_certify_anything():
    # log(0.1) / log(0.99) = 229.1
    assert threshold_with_guarantee(*with_losses(230, 0), 0.01).certified
    with pytest.raises(UserError, match=r"229 validation samples .* at least 230"):
        threshold_with_guarantee(*with_losses(229, 0), 0.01)


def test_the_default_grid():
    grid = GUARANTEE_GRID
    assert (len(grid), grid[0], grid[-1]) == (200, 1, 0)
    in_float32 = grid.astype(np.float32)
    assert np.all(np.diff(in_float32) < 0)
    assert in_float32[1] == np.nextafter(np.float32(1), np.float32(0))


@pytest.mark.parametrize("value", [0, 1, -0.1, float("nan")])
def test_risk_and_delta_outside_zero_to_one(value):
    with pytest.raises(UserError, match=rf"risk eps = {value} "):
        threshold_with_guarantee(*with_losses(300, 0), value)
    with pytest.raises(UserError, match=rf"delta = {value} "):
        threshold_with_guarantee(*with_losses(300, 0), 0.01, value)


@pytest.mark.parametrize("grid", [[], [0.9, 0.5], [1, 0.5, 0.7], [1, 1], [1, -0.5], [1, np.nan]])
def test_bad_grids(grid):
    with pytest.raises(UserError, match=r"grid of thresholds \["):
        threshold_with_guarantee(*with_losses(300, 0), 0.01, grid=np.array(grid, float))


def test_bad_input_for_a_guarantee():
    scores, predictions = with_losses(300, 0)
    with pytest.raises(UserError, match=r"accuracy needs labels"):
        threshold_with_guarantee(scores, predictions, 0.01, loss="accuracy")
    with pytest.raises(UserError, match=r"'acuracy'.*did you mean 'accuracy'"):
        threshold_with_guarantee(scores, predictions, 0.01, loss="acuracy")
    scores[17, 0] = np.nan
    with pytest.raises(UserError, match="sample 17 "):
        threshold_with_guarantee(scores, predictions, 0.01)


def test_the_guarantee_holds_over_500_splits_and_the_naive_choice_breaks_it():
    n, pool, steps, eps, delta, repeats = 1000, 40_000, 4, 0.02, 0.1, 500
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, pool)
    difficulty = rng.gamma(1.0, 1.5, (pool, 1, 1))
    signal = 2.5 * np.eye(10)[labels][:, None]
    noise = difficulty * rng.normal(size=(pool, steps, 10))
    cumulative = exits.accumulate((signal + noise).astype(np.float32))
    scores = np.asarray(exits.confidence(cumulative))
    predictions = np.asarray(jnp.argmax(cumulative, -1))
    grid = GUARANTEE_GRID

    def losses_at_grid(rows, lost):
        return np.asarray(exits.exit_totals(scores[rows], lost[rows], grid[::-1])[0])[::-1]

    wrong = predictions != labels[:, None]
    losses = {
        "disagreement": predictions != predictions[:, -1:],
        "accuracy": wrong & ~wrong[:, -1:],
    }
    at_grid = {name: losses_at_grid(slice(None), lost) for name, lost in losses.items()}
    broken, naive_broken = dict.fromkeys(losses, 0), 0
    for _ in range(repeats):
        rows = rng.choice(pool, n, replace=False)
        for loss in losses:
            got = threshold_with_guarantee(
                scores[rows], predictions[rows], eps, delta, loss, labels[rows]
            )
            assert got.certified
            assert got.average_timesteps < steps
            k = np.argmin(np.abs(grid - got.threshold))
            calibration_losses = losses_at_grid(rows, losses[loss])
            assert calibration_losses[k] == round(got.empirical_risk * n)
            test_risks = (at_grid[loss] - calibration_losses) / (pool - n)
            broken[loss] += test_risks[k] > eps
        # Trusting the sample, here with the losses of accuracy: the lowest that keeps eps on it.
        naive_broken += test_risks[np.flatnonzero(calibration_losses <= eps * n)[-1]] > eps
    allowed = delta + 3 * math.sqrt(delta * (1 - delta) / repeats)
    for loss, count in broken.items():
        assert 0 < count / repeats <= allowed, loss  # above 0: the bound is not idle
    assert naive_broken / repeats > allowed


def test_the_guarantee_holds_over_500_splits_of_a_trained_network(trained):
    """The unseen images of digits, halved 500 times: one half certifies, the other one judges."""
    predictor = load(trained)
    dataset = predictor.dataset
    images = np.concatenate([dataset.validation.images, dataset.test.images])
    labels = np.concatenate([dataset.validation.labels, dataset.test.labels])
    logits = predictor.logits(images)
    cumulative = exits.accumulate(logits)
    scores = np.asarray(exits.confidence(cumulative))
    predictions = np.asarray(cumulative.argmax(-1))

    eps, delta, repeats, half = 0.1, 0.1, 500, len(labels) // 2
    rng = np.random.default_rng(0)
    allowed = delta + 3 * math.sqrt(delta * (1 - delta) / repeats)
    wrong = predictions != labels[:, None]
    losses = {
        "disagreement": predictions != predictions[:, -1:],
        "accuracy": wrong & ~wrong[:, -1:],
    }
    for loss, lost in losses.items():
        broken, certified = 0, 0
        for _ in range(repeats):
            order = rng.permutation(len(labels))
            chosen, rest = order[:half], order[half:]
            got = threshold_with_guarantee(
                scores[chosen], predictions[chosen], eps, delta, loss, labels[chosen]
            )
            times = np.asarray(exits.exit_times(scores[rest], got.threshold))
            broken += lost[rest, times - 1].mean() > eps
            certified += got.certified
        print(f"{loss}: {broken} of {repeats} splits exceed eps = {eps}, {certified} certified")
        assert certified > repeats / 2
        assert broken / repeats <= allowed
