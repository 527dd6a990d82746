"""Figures of the answers, worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.engine import Exited
from seenn_jax.evaluation import answers
from seenn_jax.evaluation.answers import PerImage, by_class, calibration, mistakes
from seenn_jax.exits import Answers

# Six images of three classes, T = 2.
FOUND = PerImage(
    labels=np.array([0, 0, 1, 1, 1, 2]),
    predictions=np.array([0, 1, 1, 0, 0, 1]),
    timesteps=np.array([1, 2, 1, 2, 2, 1]),
    confidence=np.array(
        [[0.9, 1.0], [0.5, 0.6], [0.8, 1.0], [0.4, 0.7], [0.3, 0.5], [0.7, 0.9]], np.float32
    ),
)


def test_right_and_the_confidence_at_the_exit():
    np.testing.assert_array_equal(FOUND.right, [True, False, True, False, False, False])
    np.testing.assert_array_equal(FOUND.sure, np.float32([0.9, 0.6, 0.8, 0.7, 0.5, 0.7]))


def test_what_becomes_of_each_class():
    assert by_class(FOUND, ["cat", "dog", "fox", "owl"]) == [
        {"class": "cat", "samples": 2, "right": 1, "exit_counts": [1, 1]},
        {"class": "dog", "samples": 3, "right": 1, "exit_counts": [1, 2]},
        {"class": "fox", "samples": 1, "right": 0, "exit_counts": [1, 0]},
        {"class": "owl", "samples": 0, "right": 0, "exit_counts": [0, 0]},
    ]


def test_the_most_frequent_mistakes_come_first(monkeypatch):
    expected = [
        {"label": 1, "answer": 0, "count": 2},
        {"label": 0, "answer": 1, "count": 1},
        {"label": 2, "answer": 1, "count": 1},
    ]
    assert mistakes(FOUND) == expected
    monkeypatch.setattr(answers, "PAIRS", 2)
    assert mistakes(FOUND) == expected[:2]
    assert mistakes(FOUND._replace(predictions=FOUND.labels)) == []


def test_how_many_leave_at_each_timestep():
    assert answers.counts(np.array([1, 3, 1, 4, 3, 1]), 5) == [3, 0, 2, 1, 0]


def test_calibration_by_hand():
    """Four bins; 0.5 is in the second, as (m - 1) / M < confidence <= m / M."""
    confidence = np.array([0.25, 0.375, 0.5, 0.875, 1.0], np.float32)
    found = calibration(confidence, np.array([False, True, False, True, True]), bins=4)
    assert found["bins"] == [
        {"samples": 1, "confidence": 0.25, "accuracy": 0.0},
        {"samples": 2, "confidence": 0.4375, "accuracy": 0.5},
        {"samples": 0, "confidence": None, "accuracy": None},
        {"samples": 2, "confidence": 0.9375, "accuracy": 1.0},
    ]
    # 1/5 * 0.25 + 2/5 * 0.0625 + 2/5 * 0.0625
    assert found["ece"] == pytest.approx(0.1)


def test_confidence_that_is_accuracy_is_calibrated():
    confidence = np.repeat(np.float32([0.25, 0.75]), 4)
    right = np.array([True, False, False, False, True, True, True, False])
    assert calibration(confidence, right)["ece"] == pytest.approx(0)
    assert calibration(np.ones(3, np.float32), np.ones(3, bool))["ece"] == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_every_sample_is_in_one_bin(pairs):
    confidence, right = (np.array(values) for values in zip(*pairs, strict=True))
    found = calibration(confidence, right)
    assert sum(row["samples"] for row in found["bins"]) == len(pairs)
    assert 0 <= found["ece"] <= 1
    for m, row in enumerate(found["bins"]):
        if row["samples"]:
            assert m / 15 - 1e-9 <= row["confidence"] <= (m + 1) / 15 + 1e-9


def test_the_spread_of_confidence_by_hand():
    confidence = np.array([[0.0, 1.0], [0.25, 1.0], [0.5, 1.0], [0.75, 1.0], [1.0, 1.0], [0.5, 1]])
    correct = np.array([[True, True]] * 5 + [[False, True]])
    first, second = answers.confidence_by_timestep(confidence, correct)
    assert first == {"right": pytest.approx([0.1, 0.25, 0.5, 0.75, 0.9]), "wrong": [0.5] * 5}
    assert second == {"right": [1.0] * 5, "wrong": None}


def test_what_is_known_of_each_image_comes_from_both_runs():
    cumulative = np.log(np.float32([[[0.9, 0.1], [0.5, 0.5]], [[0.25, 0.75], [0.2, 0.8]]]))
    labels, times = np.array([0, 1]), np.array([1, 2])
    found = answers.per_image(
        Answers(None, labels, cumulative, cumulative.argmax(-1), None),
        Exited(np.float32([[1, 0], [2, 1]]), times),
    )
    np.testing.assert_array_equal(found.predictions, [0, 0])
    np.testing.assert_allclose(found.confidence, [[0.9, 0.5], [0.75, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(found.sure, [0.9, 0.8], rtol=1e-6)


def test_of_one_class_everything_is_sure():
    cumulative = np.zeros((2, 3, 1), np.float32)
    exited = Exited(np.zeros((2, 1), np.float32), np.array([3, 3]))
    found = answers.per_image(Answers(None, np.zeros(2, int), cumulative, None, None), exited)
    np.testing.assert_array_equal(found.confidence, np.ones((2, 3)))
