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


@pytest.mark.parametrize("name", ["resnet8", "resnet34", "vgg16", "vggsnn"])
def test_logits_are_ours_at_every_tick(name):
    model = at_random(name, np.random.default_rng(0), "float32")
    images = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    ours = np.asarray(logits_of(model, images, T))
    assert np.abs(np.diff(ours, axis=1)).max() > 1e-3  # the ticks are not all alike
    for count in (3, 1):
        difference = np.abs(by_snntorch(model, images[:count]) - ours[:count]).max()
        print(f"{name}, batches of {count}: {difference:.1e}")
        assert difference < TOLERANCE
