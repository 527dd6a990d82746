"""Networks of others give the logits of their own code at every tick; see `make_golden`."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.config import default_config
from seenn_jax.interop.official import load_state_dict
from seenn_jax.interop.sources import source_of
from seenn_jax.models import NEURONS, build_model, conversion
from seenn_jax.models.network import run_all
from tests.interop.make_golden import drawn, images

GOLDEN = Path(__file__).parent / "golden"
QUICK = ("resnet19_tet", "vggsnn_pool")
EACH = [
    pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem not in QUICK else [])
    for path in sorted(GOLDEN.glob("*.npz"))
]


def logits_of(state, inputs, ticks):
    """Logits [N, T, K] of the network of a state dict, in float64, converted where it is an ANN.

    Inputs are [N, H, W, C].
    """
    source = source_of(state)
    config = default_config()
    config.activation = source.activation
    config.model.update(fires=source.fires, tau=source.tau)
    with jax.enable_x64(True):
        model = build_model(
            source.model,
            state[source.first].shape[0],
            image_shape=inputs.shape[1:],
            num_classes=len(state[source.last]),
            neuron=NEURONS[source.activation].make(config),
            dtype="float64",
        )
        load_state_dict(model, state)
        model = nnx.view(model, use_running_average=True)
        if source.activation == "qcfs":
            model = conversion.convert(model, inputs.shape[1:], strict=source.fires == ">")
        graph, values = nnx.split(model)
        run = jax.jit(lambda values, x: run_all(nnx.merge(graph, values), x, ticks))
        return np.asarray(run(values, jnp.asarray(inputs, jnp.float64)))


def ours_and_theirs(name):
    """Logits [N, T, K] of a golden file's network, here and in its authors' code."""
    with np.load(GOLDEN / f"{name}.npz") as golden:
        logits, shape = golden["logits"], tuple(golden["image"])
        shapes = json.loads(golden["shapes"].item())
    state = {key: drawn(key, shape) for key, shape in shapes.items()}
    assert source_of(state).model == name
    return logits_of(state, images(shape).transpose(0, 2, 3, 1), logits.shape[1]), logits


@pytest.mark.parametrize("name", EACH)
def test_logits_are_those_of_the_authors_code(name):
    found, logits = ours_and_theirs(name)
    difference = np.abs(found - logits).max()
    assert difference < 1e-8 * np.abs(logits).max()
    assert np.abs(np.diff(logits, axis=1)).max() > 0.1
