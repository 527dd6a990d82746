"""A policy at the start of its training."""

import pytest

from seenn_jax.data import load_dataset
from seenn_jax.run import folder
from seenn_jax.run.checkpoints import load_model
from seenn_jax.training.policy.train import _initial

EPOCH = (1437 - 150) // 64  # steps


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits", validation=150)


@pytest.fixture(scope="module")
def made(trained, make_policy_config, dataset):
    """(graphs, state, optimizers, config, facts) at step 0."""
    config, facts = make_policy_config(init_from=str(trained)), folder.DataFacts.of(dataset)
    network, _ = load_model(trained, *folder.load(trained))
    graphs, state, optimizers = _initial(config, facts, network, 3 * EPOCH)
    return graphs, state, optimizers, config, facts
