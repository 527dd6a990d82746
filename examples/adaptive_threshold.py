"""A neuron whose threshold rises where it fires (ALIF; Bellec et al., NeurIPS 2018).

python train.py --config=configs/digits.py \
    --config.plugins="('examples/adaptive_threshold.py',)" \
    --config.activation=alif --workdir=runs/digits_alif
python evaluate.py --workdir=runs/digits_alif
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seenn_jax import NEURONS, Neuron
from seenn_jax.models.neurons import SURROGATES, fold

FORGETS = 0.75  # what is left of a rise a tick later


class ALIF(nnx.Module):
    """LIF neurons whose threshold rises by softplus(`raw`) where they fire, and falls again.

    Each layer gets a copy with a `raw` of its own. The state is (membrane, rise of the threshold).
    """

    def __init__(self, tau: float, threshold: float, surrogate: str):
        self.tau, self.threshold, self.surrogate = tau, threshold, surrogate
        self.raw = nnx.Param(jnp.float32(-2.0))

    def __call__(self, currents, v0=None):
        """Return (spikes, states) of all ticks of `currents` [B, T, ...], from `v0`."""
        more = jax.nn.softplus(self.raw[...]).astype(currents.dtype)
        spike = SURROGATES[self.surrogate]
        if v0 is None:
            rest = jnp.zeros((currents.shape[0], *currents.shape[2:]), currents.dtype)
            v0 = rest, rest

        def step(state, current):
            v, rise = state
            v = self.tau * v + current
            s = spike(v - self.threshold - rise)
            return (v * (1 - s), FORGETS * rise + more * s), s

        return fold(step, currents, v0)


NEURONS["alif"] = Neuron(
    lambda config: ALIF(config.model.tau, config.model.threshold, config.model.surrogate)
)
