"""Spiking neurons: a pure step `(membrane, current) -> (membrane, spikes)` and its fold over time.

Time is axis 1 everywhere ([B, T, ...]), so that merging batch and time keeps the batch outermost
and a batch that is sharded over devices stays sharded.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Num, PyTree

from seenn_jax.errors import UserError, check_choice
from seenn_jax.tables import Table, check_call, check_given

# Up to this many ticks the scan is unrolled: the compiler then fuses the ticks with what is around
# them. Longer runs keep the loop, and with it the size of the program.
MAX_UNROLL = 16


def surrogate(derivative: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The Heaviside step H(x) = [x >= 0] whose derivative is `derivative`, of float32 or wider."""

    @jax.custom_jvp
    def spike(x):
        return (x >= 0).astype(x.dtype)

    @spike.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return spike(x), derivative(wide).astype(x.dtype) * dx

    return spike


def dspike_derivative(x: Array, temperature: float = 3.0, region: float = 3.0) -> Array:
    """b sech^2(b x) / (2 tanh(b r)) on |x| <= r, else 0; b = `temperature`, r = `region`.

    Source: Dspike (Li et al., NeurIPS 2021) with the constants of SEENN's CIFAR runs.
    """
    sech2 = 1 - jnp.square(jnp.tanh(temperature * x))
    scale = temperature / (2 * jnp.tanh(temperature * region))
    return jnp.where(jnp.abs(x) <= region, scale * sech2, 0)


def triangle_derivative(x: Array, gamma: float = 1.0) -> Array:
    """max(0, gamma - |x|) / gamma^2, SEENN's surrogate for event data."""
    return jnp.maximum(0, gamma - jnp.abs(x)) / gamma**2


def _check(what: str, row: Any) -> None:
    check_call(what, row, "x")
    some = jax.ShapeDtypeStruct((2,), jnp.float32)
    same = lambda found: (found.shape, found.dtype) == (some.shape, some.dtype)  # noqa: E731
    check_given(what, jax.eval_shape(row, some), same, "spikes, shaped as the x that it takes")


SURROGATES = Table(
    "SURROGATES",
    "surrogate",
    {"dspike": surrogate(dspike_derivative), "triangle": surrogate(triangle_derivative)},
    _check,
)


# `(membrane before, spikes, threshold) -> membrane after` a tick in which some neurons fired.
RESETS: dict[str, Callable[[Array, Array, float], Array]] = {
    "hard": lambda v, s, threshold: v * (1 - s),
    "soft": lambda v, s, threshold: v - threshold * s,
}


def lif_step(
    v: Float[Array, "..."],
    current: Float[Array, "..."],
    *,
    tau: float | Float[Array, ""],
    threshold: float,
    spike: Callable[[Array], Array],
    strict: bool = False,
    reset: str = "hard",
    detach_reset: bool = False,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """One tick of a leaky integrate-and-fire neuron (SEENN, eq. 1-2).

    v = tau v + current; s = H(v - threshold); v = v (1 - s), or v - threshold s with a "soft"
    `reset`. Gradient flows through the reset, unless `detach_reset` makes its s a constant. A
    `strict` one fires at v > threshold: 1 - H(threshold - v), whose derivative is the same.

    Returns:
      (membrane after the reset, spikes), both of the shape and dtype of `current`.
    """
    # A tau that is learnt is float32: what is rounded is the membrane, once.
    v = (tau * v + current).astype(current.dtype)
    s = 1 - spike(threshold - v) if strict else spike(v - threshold)
    return RESETS[reset](v, lax.stop_gradient(s) if detach_reset else s, threshold), s


def if_step(
    v: Float[Array, "..."],
    current: Float[Array, "..."],
    *,
    threshold: Float[Array, ""] | float,
    strict: bool = False,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """One tick of an integrate-and-fire neuron with soft reset (Bu et al., ICLR 2022, eq. 2-4).

    v = v + current; s = H(v - threshold); v = v - threshold s. It fires at v >= threshold: then
    T = L ticks of one current, from threshold / 2, fire as often as QCFS rounds to, halfway between
    two levels too. A `strict` one fires at v > threshold, as in SEENN's code, which rounds those
    down.

    Returns:
      (membrane after the reset, output threshold s)
    """
    v = v + current
    fires = v > threshold if strict else v >= threshold
    output = threshold * fires.astype(v.dtype)
    return v - output, output


def fold(
    step: Callable[[Any, Array], tuple[Any, Array]],
    currents: Float[Array, "B T *features"],
    v0: PyTree[Float[Array, "B *features"]] | None = None,
) -> tuple[Num[Array, "B T *features"], PyTree[Float[Array, "B *features"]]]:
    """Fold `step` over the time axis, from membranes `v0` (None: at rest, zero).

    Neurons with more than a membrane have a tuple of arrays as `v0`.

    Returns:
      (spikes of every tick, membranes after the last one).
    """
    if v0 is None:
        v0 = jnp.zeros((currents.shape[0], *currents.shape[2:]), currents.dtype)
    timesteps = currents.shape[1]
    unroll = timesteps if timesteps <= MAX_UNROLL else 1
    v, spikes = lax.scan(step, v0, jnp.moveaxis(currents, 1, 0), unroll=unroll)
    return jnp.moveaxis(spikes, 0, 1), v


def _fold_together(step, currents, v0):
    """`fold`, where a single tick's membranes are computed together with its spikes.

    Else XLA leaves the membrane to a later kernel that reads everything again: 6 % of a tick of
    ResNet-19 in slots.
    """
    spikes, v = fold(step, currents, v0)
    if v0 is not None and currents.shape[1] == 1:
        spikes, v = lax.platform_dependent(
            spikes, v, cpu=lambda *x: x, default=lambda *x: lax.optimization_barrier(x)
        )
    return spikes, v


@dataclasses.dataclass(frozen=True)
class LIF:
    """A layer of LIF neurons: `lif(currents, v0=None) -> (spikes, v)`; see `lif_step` and `fold`.

    Attributes:
      tau: decay of the membrane per tick, in (0, 1].
      threshold: membrane at which a neuron fires.
      surrogate: name of the surrogate derivative, a key of `SURROGATES`.
      spike_dtype: of the spikes, where it is not that of the currents: "int8" for quantised
        inference, in which no gradient flows.
      strict: fire above the threshold only.
      reset: of a neuron that fires, a key of `RESETS`: "hard" to 0, "soft" by the threshold.
      detach_reset: no gradient flows through the reset.
    """

    tau: float | Float[Array, ""] = 0.5
    threshold: float = 1.0
    surrogate: str = "dspike"
    spike_dtype: str | None = None
    strict: bool = False
    reset: str = "hard"
    detach_reset: bool = False

    def __post_init__(self):
        SURROGATES[self.surrogate]  # an unknown one is a UserError
        check_choice("reset", self.reset, RESETS)

    def in_int8(self) -> "LIF":
        """The same neurons with spikes in int8, for inference."""
        return dataclasses.replace(self, spike_dtype="int8")

    def tick(self, v, current):
        """`lif_step` of these neurons: (membranes, spikes)."""
        v, spikes = lif_step(
            v,
            current,
            tau=self.tau,
            threshold=self.threshold,
            spike=SURROGATES[self.surrogate],
            strict=self.strict,
            reset=self.reset,
            detach_reset=self.detach_reset,
        )
        return v, spikes if self.spike_dtype is None else spikes.astype(self.spike_dtype)

    def __call__(self, currents, v0=None):
        """Return (spikes, membranes) of all ticks of `currents`."""
        return _fold_together(self.tick, currents, v0)


class PLIF(nnx.Module):
    """LIF neurons whose decay is learnt, one of each layer (PLIF; Fang et al., ICCV 2021).

    tau = sigmoid(`raw`), so that it stays between 0 and 1, and begins as that of `lif`. There v
    = tau v + (1 - tau) current; here the current is not scaled, as in `lif_step`: BatchNorm, which
    comes before it, has a scale to learn. Weight decay, which is of kernels, leaves `raw` alone.

    Args:
      lif: all else of the neurons.

    Raises:
      UserError: its tau is not between 0 and 1.
    """

    def __init__(self, lif: LIF):
        if not 0 < lif.tau < 1:
            raise UserError(
                f"`config.model.tau` is {lif.tau}, from which the decay of 'plif' neurons is "
                "learnt: it must be above 0 and below 1; set `config.model.tau`"
            )
        self.lif = lif
        self.raw = nnx.Param(jax.scipy.special.logit(jnp.float32(lif.tau)))

    @property
    def tau(self) -> Float[Array, ""]:
        """Decay of the membrane per tick."""
        return jax.nn.sigmoid(self.raw[...])

    def learnt(self) -> LIF:
        """The LIF neurons of the decay that is learnt, as a number."""
        return dataclasses.replace(self.lif, tau=float(self.tau))

    def in_int8(self) -> "PLIF":
        """The same neurons with spikes in int8, for inference."""
        neuron = nnx.clone(self)
        neuron.lif = self.lif.in_int8()
        return neuron

    def __call__(self, currents, v0=None):
        """Return (spikes, membranes) of all ticks of `currents`."""
        return dataclasses.replace(self.lif, tau=self.tau)(currents, v0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def integer_spikes(x: Float[Array, "..."], largest: int) -> Float[Array, "..."]:
    """clip(round(x), 0, `largest`), whose derivative is 1 where 0 <= x <= `largest`, else 0."""
    return jnp.clip(jnp.round(x), 0, largest)


@integer_spikes.defjvp
def _(largest, primals, tangents):
    (x,), (dx,) = primals, tangents
    return integer_spikes(x, largest), jnp.where((x >= 0) & (x <= largest), dx, 0)


@dataclasses.dataclass(frozen=True)
class ILIF:
    """A layer of I-LIF neurons, which send integers (Luo et al., ECCV 2024, SpikeYOLO).

    v = tau v + current; s = clip(round(v / threshold), 0, D); v = v - threshold s. The derivative
    of s is straight through, 1 / threshold where 0 <= v / threshold <= D. Halves round to even.

    A timestep is a tick of these currents, as everywhere here: what exits save, and what "average
    timesteps" counts. Hardware of binary spikes runs each as D virtual ticks, whose sum is what the
    next neurons integrate: the same network where layers are linear, as all are but attention. T
    timesteps are then T D binary ones: beside a network of binary spikes compare energies (`energy`
    counts the s of each spike). Hardware that multiplies can keep the integers, as int8 does here.

    Attributes:
      tau: decay of the membrane per tick, in (0, 1].
      threshold: membrane for each unit of a spike.
      largest_spike: D, from 1 to 127.
      detach_reset: no gradient flows through the reset.
      spike_dtype: as of `LIF`.
    """

    tau: float = 0.5
    threshold: float = 1.0
    largest_spike: int = 4
    detach_reset: bool = False
    spike_dtype: str | None = None

    def in_int8(self) -> "ILIF":
        """The same neurons with spikes in int8, for inference."""
        return dataclasses.replace(self, spike_dtype="int8")

    def __call__(self, currents, v0=None):
        """Return (spikes, membranes) of all ticks of `currents`."""

        def step(v, current):
            v = self.tau * v + current
            spikes = integer_spikes(v / self.threshold, self.largest_spike)
            lost = lax.stop_gradient(spikes) if self.detach_reset else spikes
            after = RESETS["soft"](v, lost, self.threshold)
            return after, spikes if self.spike_dtype is None else spikes.astype(self.spike_dtype)

        return _fold_together(step, currents, v0)


class IF(nnx.Module):
    """A layer of IF neurons: `neuron(currents, v0=None) -> (threshold * spikes, v)`; see `if_step`.

    Membranes at rest are threshold / 2. They are float32 at least, whatever the currents are: the
    soft reset never clears a membrane, so that rounding errors would add up in it.

    Args:
      threshold: above 0, lambda of the activation that the layer stands for.
      strict: fire above the threshold only.
    """

    def __init__(self, threshold: Float[Array, ""] | float, strict: bool = False):
        self.strict = strict
        self.threshold = nnx.Param(jnp.asarray(threshold))

    def __call__(self, currents, v0=None):
        """Return (outputs, membranes) of all ticks of `currents`."""
        dtype = jnp.promote_types(currents.dtype, jnp.float32)
        threshold = self.threshold[...].astype(dtype)
        if v0 is None:
            v0 = jnp.full((currents.shape[0], *currents.shape[2:]), threshold / 2, dtype)

        def step(v, current):
            v, outputs = if_step(v, current, threshold=threshold, strict=self.strict)
            return v, outputs.astype(currents.dtype)

        return fold(step, currents, v0)


class Renewed(NamedTuple):
    """Membranes that are `rest` where `fresh` is set, and `old` elsewhere.

    What runs the neurons puts them there as it reads them: an array of its own would cost a pass.
    """

    old: Num[Array, "B *features"]
    rest: Num[Array, "*features"]
    fresh: Bool[Array, "B"]

    def settled(self) -> Num[Array, "B *features"]:
        """As one array."""
        fresh = self.fresh.reshape(-1, *(1,) * (self.old.ndim - 1))
        return jnp.where(fresh, self.rest, self.old)


def settle(membranes: Any) -> Any:
    """A pytree of membranes with arrays where it has `Renewed`."""
    renewed = lambda x: isinstance(x, Renewed)  # noqa: E731
    return jax.tree.map(lambda x: x.settled() if renewed(x) else x, membranes, is_leaf=renewed)


def fire(neuron: Callable, currents: Float[Array, "B T *features"], v: Any) -> tuple[Array, Any]:
    """(spikes, membranes) of a layer of neurons, from membranes `v` (None: at rest).

    Raises:
      UserError: the neurons are somebody's own, and give something else.
    """
    found = neuron(currents, settle(v))
    check_given(
        "the neuron",
        found,
        lambda pair: len(pair) == 2 and pair[0].shape == currents.shape,
        f"(spikes, membranes), the spikes shaped as its currents, {list(currents.shape)}",
    )
    return found


def largest_spike(neuron: Callable) -> int:
    """The largest that a neuron sends, in units of its threshold: 1, but of `ILIF` and its like."""
    return getattr(neuron, "largest_spike", 1)


def neurons_of(model: nnx.Module) -> list[Callable]:
    """The neurons of a network, in the order in which they run."""
    found = []

    def look(place, neuron):
        found.append(neuron)
        return neuron

    nnx.clone(model).replace_neurons(look)
    return found


def own(neuron: Callable) -> Callable:
    """A neuron for one layer alone: one with parameters is copied, others can be shared."""
    if not isinstance(neuron, nnx.Module):
        return neuron
    graph, state = nnx.split(neuron)
    return nnx.merge(graph, jax.tree.map(jnp.copy, state))  # two layers share no buffer
