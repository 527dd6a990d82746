"""Dtypes of inference by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.neurons import largest_spike, neurons_of
from seenn_jax.tables import Table, check_call, check_kind

LARGEST = 127  # number in int8


class Precision(NamedTuple):
    """A row of `PRECISIONS`.

    Attributes:
      dtype: of activations and membranes; None is the run's.
      prepare: changes a trained network in place for it, before it is frozen.
    """

    dtype: str | None = None
    prepare: Callable[[nnx.Module], None] = lambda model: None


def most_spikes(model: nnx.Module) -> int:
    """The most binary spikes that a layer gets from one place in one timestep.

    One, but of networks that add or multiply spikes, and of `ILIF` neurons, whose spikes stand for
    several.
    """
    sent = max(map(largest_spike, neurons_of(model)), default=1)
    return max(sent * getattr(model, "largest_sum", 1), sent ** getattr(model, "factors", 1))


def to_int8(model: nnx.Module) -> None:
    """Spikes, exactly, and the weights that meet spikes, rounded per output channel, in int8.

    Membranes and all else stay in the model's dtype.

    Raises:
      UserError: neurons whose outputs are no spikes, or more spikes at a place than int8 can hold.
    """
    largest = most_spikes(model)
    if largest > LARGEST:
        raise UserError(
            f"`precision` int8 holds numbers up to {LARGEST}, and in this network up to {largest} "
            "spikes come together: choose bfloat16 or float32"
        )

    def in_int8(place, neuron):
        if not hasattr(neuron, "in_int8"):
            kind = getattr(neuron, "__name__", type(neuron).__name__)
            raise UserError(
                f"`precision` int8 needs spikes of 0 and 1, and {place} is a {kind}, whose outputs "
                "are not: choose bfloat16 or float32"
            )
        return neuron.in_int8()

    model.replace_neurons(in_int8)
    for layer in model.spike_layers():
        if isinstance(layer, ConvBN):  # the read-out is computed in float32 in any case
            layer.quantize()


def _check(what: str, row: Any) -> None:
    check_kind(what, row, Precision)
    check_call(f"`prepare` of {what}", row.prepare, "model")
    check_kind(f"`dtype` of {what}", row.dtype or "", str)


PRECISIONS = Table(
    "PRECISIONS",
    "precision",
    {
        "bfloat16": Precision("bfloat16"),
        "float32": Precision("float32"),
        "int8": Precision(prepare=to_int8),
    },
    _check,
)
