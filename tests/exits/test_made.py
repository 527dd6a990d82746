"""What an exit of somebody's own lacks, takes or gives is said by the name of its method."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.errors import UserError
from seenn_jax.exits import EXITS, Answers, Chosen, Given, Rising, above, confidence, made

CORRECT = np.array([[True, False], [False, True], [True, True]])  # [N=3, T=2]
ANSWERS = Answers(None, np.zeros(3), np.zeros((3, 2, 4)), np.zeros((3, 2)), CORRECT)


class Own(Rising):
    name = "own"

    def signal(self, answers):
        return np.asarray(confidence(answers.cumulative))

    def criterion(self, value, params, images):
        return above(confidence, value)


@pytest.fixture
def own():
    """`(**changed) -> the exit`, made with these methods or attributes."""

    def make(**changed):
        dict.__setitem__(EXITS, "own", lambda run: type("Changed", (Own,), changed)())
        return made.make_exit("own", None)

    yield make
    EXITS.pop("own", None)


def test_one_that_is_whole(own):
    exit = own()
    assert made.chosen_by(exit, Given(0.5), None, None) == Chosen(0.5, "as given")
    signal = made.signal_of(exit, ANSWERS)
    assert signal.tolist() == [[0.25, 0.25]] * 3
    assert made.times_of(exit, signal, 0.2, ANSWERS).tolist() == [1, 1, 1]
    assert len(made.sweep_of(exit, signal, ANSWERS)) > 1
    assert made.about_of(exit, ANSWERS, np.ones(3, int)) is None


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (
            {"criterion": lambda self, value: None},
            "`criterion` of the exit 'own' takes (value) and",
        ),
        (
            {"signal": lambda self: None},
            "`signal` of the exit 'own' takes () and is called with (an",
        ),
        (
            {"check": None},
            "the method `check` of the exit 'own' is None: it must take (choice, tim",
        ),
    ],
)
def test_methods_of_other_arguments(own, changed, what):
    with pytest.raises(UserError, match=re.escape(what)):
        own(**changed)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("name", "other"), ("knob", None), ("default", None), ("default", 0.5), ("params", "abc")],
)
def test_attributes(own, attribute, value):
    with pytest.raises(UserError, match=f"the exit 'own' gives a Changed: .* has `{attribute}`: "):
        own(**{attribute: value})


def test_what_is_no_exit():
    dict.__setitem__(EXITS, "own", lambda run: None)
    try:
        with pytest.raises(
            UserError, match=r"the exit 'own' gives None: it must give what has `name`"
        ):
            made.make_exit("own", None)
    finally:
        del EXITS["own"]


@pytest.mark.parametrize(
    ("method", "gives", "what"),
    [
        ("signal", np.zeros(3), "float64[3]: it must give numbers [N, T], here [3, 2]"),
        ("signal", np.full((3, 2), "a"), "<U1[3, 2]: it must give numbers"),
        ("signal", [[0.5, 0.5]] * 3, "a list: it must give numbers"),
        ("choose", 0.5, "0.5: it must give a Chosen"),
        ("choose", Chosen(np.nan, "by hand"), "a Chosen: it must give a Chosen of a finite value"),
        ("times", np.ones(3), "float64[3]: it must give integers [N] from 1 to 2"),
        ("times", np.zeros(3, int), "int64[3]: it must give integers [N] from 1 to 2"),
        ("times", np.ones(4, int), "int64[4]: it must give integers"),
        (
            "sweep",
            None,
            "None: it must give a list of dicts of accuracy, average_timesteps, thresh",
        ),
        ("sweep", [{"threshold": 1}], "a list: it must give a list of dicts of"),
        ("about", {"a": 1}, "a dict: it must give a dict of beta, candidates, "),
        ("criterion", None, "None: it must give a Criterion"),
    ],
)
def test_what_methods_give(own, method, gives, what):
    exit = own(**{method: lambda self, *_: gives})
    calls = {
        "signal": lambda: made.signal_of(exit, ANSWERS),
        "choose": lambda: made.chosen_by(exit, Given(0.5), None, None),
        "times": lambda: made.times_of(exit, None, 0.5, ANSWERS),
        "sweep": lambda: made.sweep_of(exit, None, ANSWERS),
        "about": lambda: made.about_of(exit, ANSWERS, np.ones(3, int)),
        "criterion": lambda: made.criterion_of(exit, 0.5, (), None),
    }
    with pytest.raises(UserError, match=re.escape(f"`{method}` of the exit 'own' gives {what}")):
        calls[method]()


def test_a_value_that_is_traced_is_no_number(own):
    exit = own(criterion=lambda self, value, params, images: above(confidence, float(value)))
    with pytest.raises(UserError, match="`criterion` of the exit 'own' makes a Python value"):
        jax.eval_shape(
            lambda value: made.criterion_of(exit, value, (), None).memory, jnp.float32(0)
        )
