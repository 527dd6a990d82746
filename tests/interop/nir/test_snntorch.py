"""snnTorch runs what is exported, at any batch size, with our logits at every tick.

snntorch and torch are no part of the test environment: pip install snntorch==1.0.0 torch.
"""

import jax
import numpy as np
import pytest

from seenn_jax.interop.nir import build_graph
from tests.models.networks import at_random, logits_of

torch = pytest.importorskip("torch")
import_nir = pytest.importorskip("snntorch.import_nir")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # which are theirs
SHAPE, T = (32, 32, 3), 4
TOLERANCE = 2e-6


def by_snntorch(model, images):
    """Logits [B, T, K] of a network that is written and read."""
    network = import_nir.import_from_nir(build_graph(model, SHAPE))
    inputs = torch.from_numpy(np.array(images).transpose(0, 3, 1, 2))
    with torch.no_grad():
        found = [network(inputs)[0] for _ in range(T)]  # membranes stay in its modules
    return np.stack([np.asarray(logits) for logits in found], 1)


def ours_and_theirs(name, count):
    """Logits [B, T, K] here and in snnTorch, in batches of `count`."""
    model = at_random(name, np.random.default_rng(0), "float32")
    images = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    return np.asarray(logits_of(model, images, T))[:count], by_snntorch(model, images[:count])


NAMES = ("resnet8", "resnet34", "vgg16", "vggsnn", "mlp")


@pytest.mark.parametrize("count", [3, 1])
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_ours_at_every_tick(name, count):
    ours, theirs = ours_and_theirs(name, count)
    assert np.abs(np.diff(ours, axis=1)).max() > 1e-3  # the ticks are not all alike
    assert np.abs(ours - theirs).max() < TOLERANCE
