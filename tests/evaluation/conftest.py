"""What the tests of evaluations share: each result and the plain logits computed once."""

import functools

import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.data import load_dataset
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits.prices import split_outputs
from seenn_jax.run import folder
from seenn_jax.run.checkpoints import load_policy
from tests.evaluation.plain import cumulative_of, logits_of, streaks_of

T = 3  # of `trained`


@pytest.fixture(scope="session")
def dataset():
    return load_dataset("digits", validation=150)


@pytest.fixture(scope="session")
def cumulative(trained, dataset):
    """{split: cumulative logits [N, T, K] of `trained`}."""
    return {
        split: cumulative_of(trained, getattr(dataset, split).images, T)
        for split in ("validation", "test")
    }


@pytest.fixture(scope="session")
def cached(cumulative, dataset):
    """{split: (scores by exit [N, T], correct [N, T])}, from logits of all T ticks."""
    found = {}
    for split, logits in cumulative.items():
        predictions = logits.argmax(-1)
        scores = {exit: np.asarray(score(logits)) for exit, score in exits.SCORES.items()}
        correct = predictions == getattr(dataset, split).labels[:, None]
        found[split] = scores | {"patience": streaks_of(predictions)}, correct
    return found


@pytest.fixture(scope="session")
def evaluated(trained):
    """`(exit, **arguments) -> result` of the trained run, each computed once."""

    @functools.cache
    def call(exit="confidence", **arguments):
        return evaluate(trained, exit=exit, **arguments)

    return call


@pytest.fixture(scope="session")
def trained_ann(call_train, make_config, made_once):
    """A run of an ordinary network with QCFS activations."""
    changes = {"activation": "qcfs", "loss": "mean_ce", "epochs": 2, "inherit_epochs": 0}

    def make(workdir):
        said = call_train(make_config(**changes), workdir)
        assert "T = 1, in" in said
        assert " at t = 1  " in said

    workdir = made_once("ann", make)
    assert {name for line in folder.metrics(workdir) for name in line if "validation" in name} == {
        "validation/accuracy_1"
    }
    return workdir


@pytest.fixture(scope="session")
def by_policy(trained_policy, dataset):
    """(the policy's logits, whether each t is right) of the test split, run plainly."""
    config, facts = folder.load(trained_policy)
    policy = load_policy(trained_policy, config, facts)
    chosen = logits_of(policy, facts, dataset.test.images, 1)
    assert chosen.shape[-1] == 2 * 2 + 10  # candidates twice, classes
    cumulative = cumulative_of(trained_policy, dataset.test.images, T)
    correct = cumulative.argmax(-1) == dataset.test.labels[:, None]
    return np.asarray(split_outputs(chosen[:, 0], 2)[0]), correct
