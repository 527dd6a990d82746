"""The images that a report shows, and what it says of the run."""

import numpy as np
import pytest

from seenn_jax.data.events.cifar10_dvs import CIFAR10_DVS
from seenn_jax.evaluation.answers import PerImage
from seenn_jax.evaluation.details import EXAMPLES, choose
from seenn_jax.evaluation.details import details as details_of
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits import Given
from seenn_jax.report.files import write_report
from seenn_jax.run.inference import load


def per_image(labels, predictions, timesteps, sure):
    confidence = np.repeat(np.float32(sure)[:, None], max(timesteps), 1)
    return PerImage(np.array(labels), np.array(predictions), np.array(timesteps), confidence)


def test_the_easiest_the_hardest_and_the_wrong_by_hand():
    found = per_image([0] * 5, [0, 1, 0, 1, 0], [1, 1, 2, 2, 3], [0.8, 0.9, 0.7, 0.6, 0.75])
    chosen = choose(found, most=3)
    assert {kind: which.tolist() for kind, which in chosen.items()} == {
        "easiest": [1, 0, 2],
        "hardest": [4, 3, 2],
        "wrong": [1, 3],
    }


class Counted:
    """Images [N, 2, 2, 1] of which image i is all i; `read` are those that were asked for."""

    def __init__(self):
        self.read = []

    def __getitem__(self, which):
        self.read += which.tolist()
        return np.broadcast_to(which[:, None, None, None], (len(which), 2, 2, 1)).astype(np.uint8)


def test_only_what_is_shown_is_read(trained):
    run, n, images = load(trained), 200, Counted()
    names = ("cat", "dog", *"abcdefgh")
    run.facts = run.facts._replace(classes=names)
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 2, (2, n))
    found = per_image(labels, answers, rng.integers(1, 4, n), rng.random(n))
    details = details_of(run, images, found)
    chosen = choose(found)
    assert sorted(images.read) == sorted(set(np.concatenate([*chosen.values()]).tolist()))
    assert len(images.read) <= 3 * EXAMPLES
    for kind, which in chosen.items():
        assert len(details.examples[kind]) == EXAMPLES
        for i, example in zip(which, details.examples[kind], strict=True):
            assert example.image.tolist() == np.full((2, 2, 1), i).tolist()
            assert example.label == names[labels[i]]
            assert example.answer == names[answers[i]]
            assert example.timesteps == found.timesteps[i]
            assert example.confidence == pytest.approx(found.sure[i])
    assert ("model.name", "one_block", "resnet8") in details.config
    assert ("optimizer.momentum", 0.9, 0.9) in details.config


def test_the_details_of_a_run(trained, dataset, tmp_path):
    found = []
    result = evaluate(trained, choice=Given(0.4), details=found.append)
    (details,) = found
    assert len(details.examples["easiest"]) == len(details.examples["hardest"]) == EXAMPLES
    wrong = sum(pair["count"] for pair in result["mistakes"])
    assert wrong == round((1 - result["accuracy"]) * 360) > 0
    assert len(details.examples["wrong"]) == min(wrong, EXAMPLES)
    first = details.examples["easiest"][0]
    assert first.timesteps == 1 + np.flatnonzero(result["exit_shares"])[0]
    index = np.flatnonzero((dataset.test.images == first.image).all((1, 2, 3)))
    assert first.label in map(str, dataset.test.labels[index])
    assert [row["epoch"] for row in details.training] == [1, 2, 3, 4, 5, 6]
    assert "validation/accuracy_3" in details.training[-1]
    page = write_report(result, tmp_path, details).read_text()
    assert page.count('src="data:image/png;base64,') == sum(map(len, details.examples.values()))


def test_recordings_are_shown_as_the_sum_of_their_frames(on_events):
    found = []
    evaluate(on_events[0], details=found.append)
    example = found[0].examples["easiest"][0]
    sums = load(on_events[0]).dataset.test.images.sum(1)
    assert example.image.shape == (48, 48, 2)
    assert (sums == example.image).all((1, 2, 3)).any()
    assert example.label in CIFAR10_DVS
