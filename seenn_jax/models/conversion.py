"""From an ordinary network (ANN) to a spiking one: QCFS activations, thresholds, conversion.

An ANN is a network of `models` whose neurons are activations, `activation(currents, v0=None) ->
(outputs, None)`: they have no membrane, and it runs one timestep. Converted, each is an IF neuron
of the activation's threshold lambda. For one current the mean of its outputs over t timesteps is
that of a QCFS with L = t, so it tends to the activation up to its quantisation. Source: Bu et al.,
"Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks",
ICLR 2022 (QCFS).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from seenn_jax.errors import UserError
from seenn_jax.models.activations import QCFS, ReLU
from seenn_jax.models.network import rest, run_all
from seenn_jax.models.neurons import IF, ILIF, LIF, PLIF
from seenn_jax.ticks import currents

# Divides the summed logits of a converted network before exit scores are taken of them, as in the
# official code. Not their mean: one timestep's logits are as large as those of eight and mostly
# rounding errors, and must not look as sure. (On the 200 validation digits, a ResNet-8 from
# lambda = 4, at 2.0 timesteps on average: 83.5 % by this, 76.5 % by the sum, 67.0 % by the mean;
# one seed. The better a network is at t = 1, the less it matters.)
EXIT_TEMPERATURE = 8.0
PERCENTILE = 99.9  # of a ReLU's outputs, its threshold


def convert(
    model: nnx.Module,
    image_shape: tuple[int, int, int],
    thresholds: Mapping[str, float] | None = None,
    strict: bool = False,
) -> nnx.Module:
    """The spiking network of an ANN: of the same class, with an IF neuron for each activation.

    Args:
      model: an ANN, which is left as it is.
      image_shape: (height, width, channels) of one input.
      thresholds: of the ReLUs by their place, from `calibrate`; QCFS has its own.
      strict: the neurons fire above their threshold only.

    Raises:
      UserError: a layer that spikes already, an activation that is neither QCFS nor ReLU, a ReLU
        without threshold, a threshold that is not positive (and finite), or `unconvertible`.
    """

    def spiking(place, activation):
        kind = getattr(activation, "__name__", type(activation).__name__)
        if isinstance(activation, QCFS):
            threshold = activation.threshold
        elif isinstance(activation, ReLU):
            if place not in (thresholds or {}):
                raise UserError(
                    f"{place} is a ReLU, which has no threshold of its own: find the thresholds "
                    "of all layers with conversion.calibrate first"
                )
            threshold = jnp.float32(thresholds[place])
        elif isinstance(activation, LIF | PLIF | ILIF | IF):
            raise UserError(
                f"{place} is a layer of {kind} neurons: the network spikes already, and only one "
                "with QCFS or ReLU activations can be converted; evaluate it as it is"
            )
        else:
            raise UserError(
                f"{place} is a {kind}, which has no spiking counterpart: train the network with "
                "`config.activation`=qcfs or relu"
            )
        value = float(threshold)
        if not 0 < value < float("inf"):
            raise UserError(
                f"{place} has the threshold {value}, and thresholds must be positive: train with a "
                "lower learning rate, or calibrate on images that this layer responds to"
            )
        return IF(threshold, strict)

    snn = nnx.clone(model)
    snn.replace_neurons(spiking)
    why = unconvertible(model, image_shape)
    if why is not None:
        raise UserError(
            f"the network has {why}, which rates of spikes can't compute: train one without, such "
            "as a `resnet` or `vgg` with average pooling, or evaluate it as it is, with `ann`"
        )
    return snn


def unconvertible(model: nnx.Module, image_shape: tuple[int, int, int]) -> str | None:
    """Why rates of spikes can't compute what an ANN does, in words; None where they can.

    The largest of several spike trains is not their largest rate, nor is the rate of the product of
    two of them that of their rates.

    Args:
      model: it is only traced.
      image_shape: (height, width, channels) of one input.
    """
    # Statistics of a batch would be products of what comes of the image, too.
    graph, state = nnx.split(nnx.view(model, use_running_average=True))

    def run(state, image):
        return run_all(nnx.merge(graph, state, copy=True), image, 1)[0]

    traced = jax.make_jaxpr(run)(state, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)).jaxpr
    return next(_mixtures(traced, [False] * (len(traced.invars) - 1) + [True]), None)


def _mixtures(jaxpr: Any, given: Sequence[bool]) -> Iterator[str]:
    """What takes the largest of several spikes or multiplies them, in a jaxpr and what it calls.

    Args:
      given: which arguments come of the image.
    """
    of_image = dict(zip(jaxpr.invars, given, strict=True))
    for equation in jaxpr.eqns:
        inside = [
            not isinstance(x, jax.extend.core.Literal) and of_image.get(x, False)
            for x in equation.invars
        ]
        of_image |= dict.fromkeys(equation.outvars, any(inside))
        name = equation.primitive.name
        shapes = ["x".join(map(str, out.aval.shape[1:])) for out in equation.outvars]
        if name in ("reduce_window_max", "reduce_max") and any(inside):
            yield f"max pooling (to a map of {shapes[0]})"
        if name in ("mul", "dot_general") and all(inside):
            yield f"a product of spikes with spikes, as in attention (to {shapes[0]})"
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            # Those of a branch are the last arguments of what chooses it.
            unknown = [True] * len(inner.invars)
            yield from _mixtures(inner, (unknown + inside)[len(inside) :])


def layer_outputs(
    model: nnx.Module, currents: Float[Array, "B T H W D"], membranes: Any = None
) -> tuple[Float[Array, "B T K"], Any, dict[str, Float[Array, "B T ..."]]]:
    """(logits, membranes, outputs of each neuron or activation by its place), as they run."""
    outputs = {}

    def record(place, neuron):
        def recorded(currents, v0=None):
            outputs[place], v = neuron(currents, v0)
            return outputs[place], v

        return recorded

    model = nnx.clone(model)
    model.replace_neurons(record)
    logits, membranes = model.integrate(currents, membranes)
    return logits, membranes, outputs


def calibrate(
    model: nnx.Module,
    batches: Iterable[Array],
    percentile: float = PERCENTILE,
) -> dict[str, float]:
    """Thresholds for the conversion of ReLUs, by their place: a percentile of their outputs.

    The baseline of Rueckauer et al., Frontiers in Neuroscience 2017. Outputs of one layer are all
    of its units on all images of a batch; of several batches, percentiles are averaged, and for
    100, the maximum, the largest counts.

    Args:
      model: an ANN for inference.
      batches: normalised training images [B, H, W, C]; a few thousand in all will do.
      percentile: above 0, at most 100.

    Raises:
      UserError: a percentile outside of that.
    """
    if not 0 < percentile <= 100:
        raise UserError(
            f"the percentile is {percentile}: it must be above 0 and at most 100, the maximum; "
            f"give one such as {PERCENTILE}"
        )
    graph, state = nnx.split(model)

    @jax.jit
    def measure(state, images):
        model = nnx.merge(graph, state)
        _, _, outputs = layer_outputs(model, currents(model, images, 1))
        return {
            place: jnp.percentile(x.astype(jnp.float32), percentile) for place, x in outputs.items()
        }

    measured = [jax.device_get(measure(state, images)) for images in batches]
    over_batches = np.max if percentile == 100 else np.mean
    return {place: float(over_batches([m[place] for m in measured])) for place in measured[0]}


def compare(
    ann: nnx.Module,
    snn: nnx.Module,
    batches: Iterable[tuple[Array, ArrayLike]],
    timesteps: Sequence[int],
) -> dict:
    """How near a converted network comes to its ANN after t timesteps.

    Args:
      ann: the source, for inference.
      snn: what `convert` made of it, for inference.
      batches: (normalised images [B, H, W, C], labels [B]).
      timesteps: the t, ascending.

    Returns:
      {ann_accuracy; timesteps; accuracy at each of them, of the summed logits; layers: a list, from
      the first to the last, of {place, threshold, error: at each t the mean absolute difference
      between the average output up to t and the activation, over all units and images}}
    """
    graph, state = nnx.split((ann, snn))

    @jax.jit
    def measure(state, images, labels):
        ann, snn = nnx.merge(graph, state)
        logits, _, wanted = layer_outputs(ann, currents(ann, images, 1))
        shown = currents(snn, images, 1)

        def tick(carry, t):
            membranes, total, sums = carry
            logits, membranes, outputs = layer_outputs(snn, shown, membranes)
            total = total + logits[:, 0]
            sums = {place: sums[place] + x[:, 0] for place, x in outputs.items()}
            errors = {
                place: jnp.sum(jnp.mean(jnp.abs(x / t - wanted[place][:, 0]), range(1, x.ndim)))
                for place, x in sums.items()
            }
            return (membranes, total, sums), (jnp.sum(total.argmax(-1) == labels), errors)

        zeros = {place: jnp.zeros(x[:, 0].shape) for place, x in wanted.items()}
        carry = (rest(snn, shown), jnp.zeros_like(logits[:, 0]), zeros)
        _, (right, errors) = lax.scan(tick, carry, jnp.arange(1, max(timesteps) + 1))
        return jnp.sum(logits[:, 0].argmax(-1) == labels), right, errors

    sums, samples = None, 0
    for images, labels in batches:
        measured = jax.device_get(measure(state, images, labels))
        sums = measured if sums is None else jax.tree.map(np.add, sums, measured)
        samples += len(labels)
    ann_right, right, errors = sums
    at = np.asarray(timesteps) - 1
    layers = [
        {"place": place, "threshold": value, "error": (errors[place][at] / samples).tolist()}
        for place, value in thresholds_of(snn).items()
    ]
    return {
        "ann_accuracy": float(ann_right / samples),
        "timesteps": list(timesteps),
        "accuracy": (right[at] / samples).tolist(),
        "layers": layers,
    }


def thresholds_of(snn: nnx.Module) -> dict[str, float]:
    """Lambda of each layer of a converted network by its place, from the first to the last."""
    thresholds = {}

    def look(place, neuron):
        thresholds[place] = float(neuron.threshold[...])
        return neuron

    nnx.clone(snn).replace_neurons(look)
    return thresholds
