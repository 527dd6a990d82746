import dataclasses

import pytest
import scipy.stats

from seenn_jax.exits import Chosen, Given, Risk, Target, Tolerance
from seenn_jax.exits.choose import FEWEST, too_few


@pytest.mark.parametrize(
    ("choice", "setting", "values"),
    [
        (Given(0.5), "threshold", (0.5,)),
        (Target(1.5), "target_timesteps", (1.5,)),
        (Risk(0.02), "risk", (0.02, 0.1, "disagreement")),
        (Risk(0.02, 0.2, "accuracy"), "risk", (0.02, 0.2, "accuracy")),
        (Tolerance(), "tolerance", (0.001,)),
    ],
    ids=str,
)
def test_a_choice_knows_its_setting_and_values(choice, setting, values):
    assert choice.setting == setting
    assert dataclasses.astuple(choice) == values
    assert choice == type(choice)(*values)
    with pytest.raises(dataclasses.FrozenInstanceError):
        choice.value = 1


def test_choices_of_one_value_differ_by_their_kind():
    assert len({Given(1), Target(1), Risk(1), Tolerance(1)}) == 4


def test_what_is_chosen_has_a_guarantee_where_one_was_asked_for():
    assert Chosen(0.5, "as given") == (0.5, "as given", None)


@pytest.mark.parametrize(
    ("tolerance", "asked", "needed"),
    [
        (0.001, False, 150),
        (0.001, True, 1000),  # of fewer, one image is more than that
        (0.003, True, 334),
        (0.0, True, 150),
        (0.05, True, 150),
    ],
)
def test_a_split_may_be_too_small_for_a_tolerance(tolerance, asked, needed):
    choice = Tolerance(tolerance)
    assert too_few(choice, needed, asked) is None
    said = too_few(choice, needed - 1, asked)
    assert f"{needed - 1:,} validation images" in said
    assert f"at most {100 * tolerance:g} points" in said
    assert f"hold out {needed:,} or more" in said


def test_what_may_be_lost_unseen():
    assert "up to 10 points" in too_few(Tolerance(), 30, asked=False)
    for images, lost in ((30, 0.1), (FEWEST, 0.02)):
        # If so many are lost, it is seen on these images with a probability of 95 %.
        assert scipy.stats.binom.pmf(0, images, lost) == pytest.approx(0.05, abs=0.01)
