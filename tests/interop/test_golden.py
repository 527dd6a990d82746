"""Networks of others give the logits of their own code at every tick; see `make_golden`."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

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


@pytest.mark.parametrize("name", EACH)
def test_logits_are_those_of_the_authors_code(name, make_config):
    with np.load(GOLDEN / f"{name}.npz") as golden:
        logits, shape = golden["logits"], tuple(golden["image"])
        shapes = json.loads(golden["shapes"].item())
    state = {key: drawn(key, shape) for key, shape in shapes.items()}
    source = source_of(state)
    assert source.model == name
    config = make_config(activation=source.activation)
    config.model.update(fires=source.fires, tau=source.tau)
    channels, *sides = map(int, shape)
    with jax.enable_x64(True):
        model = build_model(
            name,
            4,
            image_shape=(*sides, channels),
            num_classes=5,
            neuron=NEURONS[source.activation].make(config),
            dtype="float64",
        )
        load_state_dict(model, state)
        model = nnx.view(model, use_running_average=True)
        if source.activation == "qcfs":
            model = conversion.convert(model, (*sides, channels), strict=config.model.fires == ">")
        inputs = jnp.asarray(images(shape).transpose(0, 2, 3, 1), jnp.float64)
        graph, values = nnx.split(model)
        run = jax.jit(lambda values, x: run_all(nnx.merge(graph, values), x, logits.shape[1]))
        found = np.asarray(run(values, inputs))
    difference = np.abs(found - logits).max()
    print(f"{name}: {difference:.1e}")
    assert difference < 1e-8 * np.abs(logits).max()
    assert np.abs(np.diff(logits, axis=1)).max() > 0.1
