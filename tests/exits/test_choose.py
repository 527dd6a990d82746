import dataclasses

import pytest

from seenn_jax.exits import Chosen, Given, Risk, Target, Tolerance


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
