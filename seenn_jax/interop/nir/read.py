"""A NIR file as a network of this package, for training, exits and slots.

See `neurons` for what a tick is. An input of NIR, (channels, height, width), is an image [H, W, C];
one of N numbers is an image of 1 x 1 x N. What several edges bring to a node is added. The numbers
at the output are the logits of a tick: membranes, spikes, or whatever the graph ends with.
"""

import collections
import dataclasses
import graphlib
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from seenn_jax.errors import UserError
from seenn_jax.interop.files import DENSEST
from seenn_jax.interop.nir.layers import LAYERS, Flatten, Threshold
from seenn_jax.interop.nir.neurons import KINDS, Euler, neuron_of
from seenn_jax.interop.nir.write import library
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.neurons import LIF, SURROGATES

HEADER = 16  # bytes, in a heap of HDF5


class Step(NamedTuple):
    """A node as it is run, and the steps whose sum it takes (-1 is the input)."""

    name: str
    sources: tuple[int, ...]
    has_state: bool


class NIRNetwork(nnx.Module):
    """A network that was read; it is called as any of `models`.

    Args:
      image_shape: (height, width, channels) of one input.
      layers: of each step.
      steps: in an order in which they can run.
      shapes: what each step puts out of a sample, channels first, after that of the input.
      last: the steps whose sum are the logits.
    """

    def __init__(self, image_shape, layers, steps, shapes, last):
        self.image_shape, self.num_classes = tuple(image_shape), math.prod(shapes[last[0] + 1])
        self.smallest = min(self.image_shape[:2])
        self.layers, self.steps, self.last = nnx.List(layers), tuple(steps), tuple(last)
        self.stem = _stem(self.steps, self.last)
        self.flat, self.flat_stem = (len(shapes[at]) == 1 for at in (0, self.stem))

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Called by `nnx.view` with BatchNorm's word for inference, and there is none in NIR."""

    def spike_layers(self) -> list[nnx.Module]:
        """The layers whose inputs are spikes and nothing else."""
        return [
            layer
            for layer, step in zip(self.layers, self.steps, strict=True)
            if isinstance(layer, ConvBN | nnx.Linear) and self._gets_spikes(step)
        ]

    def _gets_spikes(self, step: Step) -> bool:
        if step.sources[0] < 0 or len(step.sources) > 1:  # two spikes add up to 2
            return False
        layer = self.layers[step.sources[0]]
        if isinstance(layer, Flatten):
            return self._gets_spikes(self.steps[step.sources[0]])
        fires = isinstance(layer, Euler) and "threshold" in layer.names
        return fires or isinstance(layer, LIF | Threshold)

    def replace_neurons(self, replace: Callable[[str, Callable], Callable]) -> None:
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        for number, step in enumerate(self.steps):
            if step.has_state:
                self.layers[number] = replace(step.name, self.layers[number])

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T h w D"]:
        """What comes before the first node with a state or a second way; no state of its own."""
        x = _vectors(inputs) if self.flat else inputs
        for layer in self.layers[: self.stem]:
            x = layer(x)
        return x[:, :, None, None] if self.flat_stem else x

    def integrate(
        self, currents: Float[Array, "B T H W D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest).

        Returns:
          (logits of each tick, membranes after the last one: one for each node with a state)
        """
        outputs = {self.stem - 1: currents[:, :, 0, 0] if self.flat_stem else currents}
        before, after = iter(membranes if membranes is not None else ()), []
        for number in range(self.stem, len(self.steps)):
            layer, step = self.layers[number], self.steps[number]
            x = _sum(outputs, step.sources)
            if step.has_state:
                x, v = layer(x, next(before, None))
                after.append(v)
            else:
                x = layer(x)
            outputs[number] = x
        x = _sum(outputs, self.last)
        logits = _vectors(x)
        return logits.astype(jnp.promote_types(x.dtype, jnp.float32)), tuple(after)


def _sum(outputs: dict[int, Array], sources: tuple[int, ...]) -> Array:
    first, *others = (outputs[source] for source in sources)
    return sum(others, first)


def _vectors(x: Array) -> Array:
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))  # no -1: there may be no ticks


def _stem(steps: tuple[Step, ...], last: tuple[int, ...]) -> int:
    """How many of the first steps are a chain without state that nothing else branches off."""
    uses = collections.Counter(source for step in steps for source in step.sources)
    uses.update(last)
    for number, step in enumerate(steps):
        if step.has_state or step.sources != (number - 1,) or uses[number - 1] > 1:
            return number
    return len(steps)


# --- Reading ---------------------------------------------------------------------------------


def read(
    path: str | Path, dt: float | None = None, *, surrogate: str = "dspike", dtype: Any = None
) -> NIRNetwork:
    """A network from a NIR file.

    Args:
      path: of the file (HDF5).
      dt: the time step in seconds; None is what the file's metadata have.
      surrogate: of the spikes' derivative in training, a key of `SURROGATES`.
      dtype: of the convolutions; float32 by default.

    Raises:
      UserError: there is no such file, or it is damaged; nir is not installed; a graph with several
        inputs or outputs, a cycle, a node of a kind that is not in `LAYERS` or `KINDS`; shapes that
        don't fit; no time step.
    """
    SURROGATES[surrogate]  # an unknown one is a UserError
    graph = _opened(Path(path))
    try:
        return _network(graph, dt, surrogate, jnp.dtype(dtype or "float32"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise _damaged(path, error) from error  # a field of another kind


@dataclasses.dataclass(frozen=True)
class FromFile:
    """A row of `MODELS` for a NIR file, so that train.py trains it; the width has no say.

    Its neurons are the file's, with the surrogate of the config's; errors as of `read`.
    """

    path: str | Path
    dt: float | None = None
    smallest = 1

    def __call__(self, width, *, image_shape, num_classes, neuron, dtype, rngs) -> NIRNetwork:
        """The network, if it fits the data."""
        if not isinstance(neuron, LIF):
            raise UserError(
                f"{self.path} brings its own neurons: leave `config.activation` at 'lif', of which "
                "it takes `config.model.surrogate`"
            )
        found = read(self.path, self.dt, surrogate=neuron.surrogate, dtype=dtype)
        wanted, there = (tuple(image_shape), num_classes), (found.image_shape, found.num_classes)
        if wanted != there:
            raise UserError(
                f"{self.path} takes images of shape {there[0]} and has {there[1]} classes, and the "
                f"data are of shape {wanted[0]} with {wanted[1]}: give data that fit"
            )
        return found


def _damaged(path: str | Path, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{path} can't be read as a NIR graph ({why}): get the file again")


def _opened(path: Path) -> Any:
    """The graph of a file; of a damaged one h5py and nir raise nearly anything."""
    nir = library()
    import h5py  # which nir needs

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} can't be read ({error.strerror}): give the path of a NIR file"
        ) from error
    try:
        _check_strings(content)
        with h5py.File(io.BytesIO(content), "r") as file:
            _check(file, len(content))
        return nir.read(io.BytesIO(content), type_check=False)
    except Exception as error:
        raise _damaged(path, error) from error


def _check_strings(content: bytes) -> None:
    """Raise a ValueError for a heap of strings in which the HDF5 library would go round for ever.

    A heap is a header of 16 bytes, with its own size, and objects, with headers of 16 bytes and
    theirs. Object 0 is the space that is left, whose size includes its header: at a size of 0, as
    where a file was zeroed, HDF5 2.0 does not move on.
    """
    for heap in re.finditer(rb"GCOL\x01", content):
        start = heap.start()
        end = start + int.from_bytes(content[start + 8 : start + 16], "little")
        at = start + HEADER
        while at + HEADER <= end:
            number = int.from_bytes(content[at : at + 2], "little")
            size = int.from_bytes(content[at + 8 : at + HEADER], "little")
            if (number == 0 and size < HEADER) or at + size > end:
                raise ValueError("a heap of its strings is damaged")
            at += size if number == 0 else HEADER + -(-size // 8) * 8


def _check(file: Any, length: int) -> None:
    """Raise a ValueError for what is no graph, and for arrays of more than there is.

    Gigabytes would be taken for these.
    """
    kind = file["node/type"][()].decode()
    if kind != "NIRGraph":
        raise ValueError(f"it holds a single {kind}")
    sizes = []

    def add(_, item):
        if hasattr(item, "dtype"):  # and is no group
            sizes.append(math.prod(item.shape or ()) * item.dtype.itemsize)

    file.visititems(add)
    if sum(sizes) > DENSEST * length:
        raise ValueError(f"it speaks of {sum(sizes):,} bytes of numbers and has {length:,}")


def _network(graph: Any, dt: float | None, surrogate: str, dtype: Any) -> NIRNetwork:
    order, sources = _ordered(graph)
    start = order[0]
    shape = tuple(map(int, np.asarray(graph.nodes[start].input_type["input"])))
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise UserError(
            f"the input has the shape {shape}: it must be (channels, height, width) or (numbers,)"
        )
    image_shape = (1, 1, *shape) if len(shape) == 1 else (*shape[1:], shape[0])
    numbers, shapes, steps, layers = {start: -1}, [shape], [], []
    for name in order[1:-1]:
        came = tuple(numbers[source] for source in sources[name])
        shape = _same_shape(name, [shapes[number + 1] for number in came])
        layer, after, has_state = _layer(graph, name, shape, dt, surrogate, dtype)
        numbers[name] = len(steps)
        steps.append(Step(name, came, has_state))
        shapes.append(after)
        layers.append(layer)
    last = tuple(numbers[source] for source in sources[order[-1]])
    shape = _same_shape(order[-1], [shapes[number + 1] for number in last])
    if math.prod(shape) != shape[0] or shape[0] < 2:
        raise UserError(
            f"the output has the shape {shape}: it must be a vector of at least 2 logits"
        )
    return NIRNetwork(image_shape, layers, steps, shapes, last)


def _same_shape(name: str, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    if len(set(shapes)) > 1:
        raise UserError(
            f"node {name!r} is given signals of shape {shapes[0]} and {shapes[1]}: only signals of "
            "one shape can be added; write the graph again"
        )
    return shapes[0]


def _layer(graph, name, shape, dt, surrogate, dtype):
    """(layer, shape of what it puts out, whether it has a state) of a node."""
    node, kind = graph.nodes[name], type(graph.nodes[name]).__name__
    if kind in LAYERS:
        return *LAYERS[kind](node, name, shape, dtype), False
    if kind not in KINDS:
        raise UserError(
            f"node {name!r} is a {kind}, which can't be said here: a graph may have "
            f"{', '.join(sorted(LAYERS.keys() | KINDS.keys()))}"
        )
    dt = graph.metadata.get("dt") if dt is None else dt
    if dt is None:
        raise UserError(
            "it does not say its time step: give `dt` in seconds, which is 1e-4 in files of "
            "snnTorch and 1e-3 in those of norse"
        )
    if not 0 < float(dt) < float("inf"):
        raise UserError(f"the time step dt is {dt}: it must be above 0, in seconds; give `dt`")
    return neuron_of(name, node, float(dt), shape, surrogate), shape, True


def _ordered(graph: Any) -> tuple[list[str], dict[str, list[str]]]:
    """(names in an order in which they can run, the sources of each); input first, output last."""
    ends = []
    for kind in ("Input", "Output"):
        found = [name for name, node in graph.nodes.items() if type(node).__name__ == kind]
        if len(found) != 1:
            raise UserError(f"the graph has {len(found)} nodes of kind {kind}: it must have one")
        ends += found
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for a, b in graph.edges:
        if a not in sources or b not in sources:
            raise UserError(f"there is an edge from {a!r} to {b!r}, and not both of these nodes")
        sources[b].append(a)
    lost = [name for name, each in sources.items() if not each and name != ends[0]]
    if lost or sources[ends[0]] or any(ends[1] in each for each in sources.values()):
        raise UserError(
            f"node {(lost or ends)[0]!r} has the wrong edges: all must lead from {ends[0]!r} to "
            f"{ends[1]!r}"
        )
    try:
        order = list(graphlib.TopologicalSorter(sources).static_order())
    except graphlib.CycleError as error:
        raise UserError(
            f"the graph is recurrent, by {' -> '.join(error.args[1])}: only graphs without a cycle "
            "can be read"
        ) from error
    between = [name for name in order if name not in ends]
    return [ends[0], *between, ends[1]], sources
