"""A neuron with a learnt decay (PLIF; Fang et al., ICCV 2021), one for each layer.

python train.py --config=configs/digits.py --config.plugins="('examples/learnt_decay.py',)" \
    --config.activation=plif --workdir=runs/digits_plif
python evaluate.py --workdir=runs/digits_plif
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from seenn_jax import NEURONS, Neuron
from seenn_jax.models.neurons import SURROGATES, fold, lif_step


class PLIF(nnx.Module):
    """LIF neurons whose decay is sigmoid(`raw`); each layer gets a copy with a `raw` of its own."""

    def __init__(self, tau: float, threshold: float, surrogate: str):
        self.threshold, self.surrogate = threshold, surrogate
        self.raw = nnx.Param(jnp.log(jnp.float32(tau) / (1 - tau)))

    def __call__(self, currents, v0=None):
        """Return (spikes, membranes) of all ticks of `currents` [B, T, ...], from `v0`."""
        tau = jax.nn.sigmoid(self.raw[...]).astype(currents.dtype)
        spike = SURROGATES[self.surrogate]
        step = functools.partial(lif_step, tau=tau, threshold=self.threshold, spike=spike)
        return fold(step, currents, v0)


NEURONS["plif"] = Neuron(
    lambda config: PLIF(config.model.tau, config.model.threshold, config.model.surrogate)
)
