"""Networks of others give the logits of their own code at every tick; see `make_golden`."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.models import build_model
from seenn_jax.models.network import run_all
from seenn_jax.models.neurons import LIF
from tests.interop.make_golden import drawn, images

GOLDEN = Path(__file__).parent / "golden"
NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def array_of(path, shapes, share):
    """What a parameter here is there; neurons that halve currents get halves from BatchNorm."""
    *place, layer, kind = map(str, path)
    place = [*place, *([] if layer == "conv" else [layer])]
    name = ".".join([*place, NAMES.get(kind, kind)])
    array = drawn(name, tuple(shapes[name]))
    if layer == "bn" and kind in ("scale", "bias"):
        array = share * array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.npz")))
def test_logits_are_those_of_the_authors_code(name):
    with np.load(GOLDEN / f"{name}.npz") as golden:
        logits, shape = golden["logits"], tuple(map(int, golden["image"]))
        shapes = json.loads(golden["shapes"].item())
    neuron = LIF(tau=0.25, threshold=0.5, strict=True) if name == "ms_resnet18" else LIF()
    with jax.enable_x64(True):
        model = build_model(
            name,
            8,
            image_shape=(*shape[1:], shape[0]),
            num_classes=5,
            neuron=neuron,
            dtype="float64",
        )
        share = 0.5 if name.endswith("former") else 1
        for path, variable in nnx.to_flat_state(nnx.state(model)):
            array = array_of(path, shapes, share)
            assert array.shape == variable.shape
            variable.set_value(jnp.asarray(array, variable.dtype))
        graph, state = nnx.split(nnx.view(model, use_running_average=True))
        assert len(jax.tree.leaves(state)) == len(shapes)
        inputs = jnp.asarray(images(shape).transpose(0, 2, 3, 1), jnp.float64)
        run = jax.jit(lambda state, x: run_all(nnx.merge(graph, state), x, logits.shape[1]))
        found = np.asarray(run(state, inputs))
    assert np.abs(found - logits).max() < 1e-8 * np.abs(logits).max()
    assert np.abs(np.diff(logits, axis=1)).max() > 0.1
