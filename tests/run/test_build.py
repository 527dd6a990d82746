"""The network of a config is the one that it says."""

import chex
import numpy as np
import pytest
from flax import nnx

from seenn_jax.models.activations import QCFS, ReLU
from seenn_jax.models.neurons import LIF
from seenn_jax.run import build
from seenn_jax.run.folder import DataFacts

FACTS = DataFacts((8, 8, 1), 10, [0.25], [0.375])


def test_build_makes_the_network_of_the_config(make_config):
    config = make_config()
    params = nnx.state(build.network(config, FACTS), nnx.Param)
    assert params["stem"]["conv"]["kernel"].shape == (3, 3, 1, 16)
    again = nnx.state(build.network(config, FACTS), nnx.Param)
    other = nnx.state(build.network(make_config(seed=1), FACTS), nnx.Param)
    chex.assert_trees_all_equal(params, again)
    kernels = params["stem"]["conv"]["kernel"], other["stem"]["conv"]["kernel"]
    assert not np.array_equal(*kernels)


@pytest.mark.parametrize(("activation", "kind"), [("qcfs", QCFS), ("relu", ReLU), ("lif", LIF)])
def test_the_network_has_the_activation_of_the_config(make_config, activation, kind):
    model = build.network(make_config(activation=activation, quantization_levels=5), FACTS)
    assert isinstance(model.blocks[0].neuron1, kind)
    if activation == "qcfs":
        assert model.neuron.levels == 5
        assert float(model.neuron.threshold) == pytest.approx(2.0)
