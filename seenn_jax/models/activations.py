"""Activations of ordinary networks (ANNs) that can be converted to spikes: QCFS and ReLU."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


@jax.custom_jvp
def _floor(x: Array) -> Array:
    return jnp.floor(x)


@_floor.defjvp
def _(primals, tangents):
    return _floor(*primals), tangents[0]


def qcfs(
    x: Float[Array, "..."],
    threshold: Float[Array, ""] | float,
    levels: int | Float[Array, "..."],
) -> Float[Array, "..."]:
    """threshold * clip(floor(x L / threshold + 1/2) / L, 0, 1), L = `levels` (Bu et al., eq. 15).

    Computed as in the authors' code, which clips first: the value is the same. Gradients pass
    through the floor. To x: 1 where 0 < x < threshold, else 0. To the threshold: (output - x) /
    threshold there, 0 below and 1 above. In float32 at least; the result has the dtype of x.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    share = jnp.clip(wide / threshold, 0, 1)
    return (threshold * (_floor(share * levels + 0.5) / levels)).astype(x.dtype)


class QCFS(nnx.Module):
    """The activation `qcfs` with a threshold of its own to learn; see `conversion`.

    The threshold is softplus(`raw`): positive whatever the optimiser does, and, where it is large,
    as easily moved as `raw` itself.

    What a converted network computes at t = 1 is what its source would with L = 1, and roughly so
    at t = 2, 4, ...: a network whose samples are quantised to all of these in training is accurate
    at all of these timesteps (README.md has figures), and with that at an early exit. Which of
    `training_levels` a sample gets goes by its place in the batch, the same in every layer.

    Args:
      levels: L, the number of steps of the quantiser.
      threshold: initial lambda; the authors' is 8, with weight decay. It is learnt slowly, and one
        that is too large leaves the converted network silent at first: ResNet-8 on digits from 8
        ended at 7.3 to 7.9 after 40 epochs, and was no better than chance at t = 1.
      training_levels: the L of training, shared evenly among the samples; empty for `levels`.
    """

    def __init__(self, levels: int, threshold: float = 2.0, training_levels: tuple[int, ...] = ()):
        self.levels = levels
        self.training_levels = tuple(training_levels)
        self.training = True
        self.raw = nnx.Param(inverse_softplus(jnp.float32(threshold)))

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Called by `nnx.view` with BatchNorm's word for inference, where L is `levels`."""
        if use_running_average is not None:
            self.training = not use_running_average

    @property
    def threshold(self) -> Float[Array, ""]:
        """Lambda."""
        return jax.nn.softplus(self.raw[...])

    def __call__(self, currents, v0=None):
        """Return (outputs, None) of all ticks of `currents`."""
        levels = self.levels
        if self.training and self.training_levels:
            count = len(self.training_levels)
            of_sample = jnp.arange(len(currents)) % count
            levels = jnp.asarray(self.training_levels, jnp.float32)[of_sample]
            levels = levels.reshape(-1, *(1,) * (currents.ndim - 1))
        return qcfs(currents, self.threshold, levels), None


def inverse_softplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The y with softplus(y) = log(1 + exp(y)) = x > 0."""
    return x + jnp.log(-jnp.expm1(-x))


class ReLU(nnx.Module):
    """The rectifier as an activation; `calibrate` finds the thresholds for its conversion."""

    def __call__(self, currents, v0=None):
        """Return (outputs, None) of all ticks of `currents`."""
        return jax.nn.relu(currents), None
