"""Spiking networks as NIR graphs, for simulators and neuromorphic hardware (https://neuroir.org).

NIR (Pedersen et al., Nature Communications 2024) describes neurons by differential equations, in
which it leaves the time step to whoever runs them. What is written here is such that one forward
Euler step of `dt` of those equations is one tick of ours, v' = tau v + I:

- A layer of LIF neurons becomes `nir.LIF`, tau_nir dv/dt = (v_leak - v) + r I, with tau_nir = dt /
  (1 - tau), r = 1 / (1 - tau), v_leak = 0: v + dt / tau_nir (r I - v) = tau v + I. NIR resets to
  v_reset, 0, as we do. With tau = 1 it becomes `nir.IF`, dv/dt = r I, with r = 1 / dt. PLIF
  neurons are LIF neurons of the tau that each layer has learnt.
- A layer of IF neurons of a converted network becomes `nir.IF`. That resets to v_reset and says
  nothing of the membrane at the start, so neither the soft reset (lambda is subtracted) nor the
  start at lambda / 2 can be told in it. Such a network, as one of LIF neurons with a soft reset, is
  refused or, where that is asked for, written with them in the nodes' metadata: `read` heeds these,
  and a reader that leaves them there runs another network.
- I-LIF neurons, which send integers, are refused.
- NIR fires above v_threshold, we at it, if not `strict`: v_threshold is then the largest float32
  below our threshold, which is in the metadata.
- Spikes are 0 and 1. Lambda is in the weights of the layers after a converted one, and where a
  residual skips these, in a `nir.Scale`.

Without a `dt` it is 1e-4 s for LIF and 1 for IF neurons, at which snnTorch reads these nodes.

BatchNorm is folded into the convolutions; layouts are PyTorch's, channels first; residuals are two
edges into one node, which adds them. The input of each tick is a normalised image (its mean and
standard deviation are in the metadata; padding is zero after normalisation), the output its logits,
to be summed over ticks.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from seenn_jax.errors import UserError, needed
from seenn_jax.interop.nir.residual import ms_graph, sew_graph
from seenn_jax.models.layers import ConvBN, Shortcut
from seenn_jax.models.mlp import SpikingMLP
from seenn_jax.models.neurons import IF, ILIF, LIF, PLIF
from seenn_jax.models.residual import MSResNet, SEWResNet
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.models.vgg import SpikingVGG
from seenn_jax.paths import check_new, put

LIF_DT, IF_DT = 1e-4, 1.0


def write(
    path: str | Path,
    model: nnx.Module,
    image_shape: tuple[int, int, int],
    *,
    dt: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    lossy: bool = False,
) -> None:
    """Write a network to a NIR file (HDF5).

    Args:
      path: of a new file.
      model: a trained spiking network of this package, or a converted one.
      image_shape: (height, width, channels) of one input.
      dt: the time step, see the module's docstring.
      metadata: strings, numbers and arrays that go with the graph.
      lossy: write a network with soft resets too, with what NIR can't tell in the metadata of its
        nodes.

    Raises:
      UserError: the file exists or has no folder, nir is not installed, or NIR can't express the
        network: activations that do not spike, spikes that are integers, a shortcut that averages
        an odd map, max pooling, or, unless `lossy`, a soft reset, as of a converted network.
    """
    path = Path(path)
    check_path(path)
    content = io.BytesIO()
    library().write(content, build_graph(model, image_shape, dt=dt, metadata=metadata, lossy=lossy))
    put(path, content.getvalue())


def check_path(path: Path) -> None:
    """Raise the UserErrors of `write` that need no network."""
    library()
    check_new("nir", path)


def build_graph(
    model: nnx.Module,
    image_shape: tuple[int, int, int],
    *,
    dt: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    lossy: bool = False,
):
    """The `nir.NIRGraph` of a network; arguments and errors as for `write`."""
    nir = library()
    model = nnx.clone(nnx.view(model, use_running_average=True))
    neurons = {}

    def look(place, neuron):
        neurons[place] = neuron.learnt() if isinstance(neuron, PLIF) else neuron
        return neurons[place]

    model.replace_neurons(look)
    leaky = all(isinstance(neuron, LIF) and neuron.tau < 1 for neuron in neurons.values())
    dt = (LIF_DT if leaky else IF_DT) if dt is None else dt
    if not 0 < dt < float("inf"):
        raise UserError(f"the time step dt is {dt}: it must be above 0, in seconds")
    graph = _Graph(nir, dt, lossy)
    height, width, channels = image_shape
    image = graph.add("input", nir.Input(np.array([channels, height, width])), (), image_shape)
    last = _builder(model)(graph, model, image)
    graph.add("output", nir.Output(np.array([model.head.out_features])), [last])
    about = {"dt": dt, "output": "logits of each tick, to be summed over ticks"}
    return nir.NIRGraph(graph.nodes, graph.edges, metadata=about | dict(metadata or {}))


def export(path: str | Path, run: Any, *, lossy: bool = False) -> None:
    """Write the network of a loaded run, with what a reader must know of its inputs; see `write`.

    Args:
      run: a `run.inference.Predictor`.
      lossy: as of `write`.
    """
    mean, std = run.facts.normalization
    about = {"mean": mean, "std": std, "timesteps": run.timesteps, "dataset": run.config.data.name}
    write(path, run.model, run.facts.image_shape, metadata=about, lossy=lossy)


def _builder(model: nnx.Module) -> Callable[["_Graph", Any, "_Signal"], "_Signal"]:
    for kind in type(model).__mro__:
        if kind in BUILDERS:
            return BUILDERS[kind]
    raise UserError(
        f"NIR has no graph of a {type(model).__name__}: it is written of "
        f"{', '.join(kind.__name__ for kind in BUILDERS)} and networks that inherit from these; "
        "add a row to interop.nir.BUILDERS"
    )


def library() -> Any:
    """The package nir.

    Raises:
      UserError: it is not installed.
    """
    return needed("NIR", "nir")


class _Signal(NamedTuple):
    """What a node puts out."""

    node: str
    shape: tuple[int, ...]  # height, width, channels; of a vector its length
    scale: float = 1.0  # by which it must be multiplied to be what it is in our network


class _Graph:
    """Nodes and edges, as they are added."""

    def __init__(self, nir, dt, lossy):
        self.nir, self.dt, self.lossy = nir, dt, lossy
        self.nodes, self.edges = {}, []

    def add(self, place, node, sources, shape=(), scale=1.0) -> _Signal:
        name = place.replace(".", "_")  # PyTorch's modules may have no dots in their names
        self.nodes[name] = node
        self.edges += [(source.node, name) for source in sources]
        return _Signal(name, tuple(shape), scale)

    def convolve(self, place: str, layer: ConvBN, x: _Signal) -> _Signal:
        conv = layer.conv
        scale, shift = layer.running()
        kernel = np.asarray(conv.kernel[...] * scale, np.float32).transpose(3, 2, 0, 1) * x.scale
        stride, padding, window = conv.strides, conv.padding, conv.kernel_size[0]
        height, width = ((side + 2 * padding - window) // stride + 1 for side in x.shape[:2])
        node = self.nir.Conv2d(
            input_shape=x.shape[:2],
            weight=np.float32(kernel),
            stride=(stride, stride),
            padding=(padding, padding),
            dilation=(1, 1),
            groups=1,
            bias=np.asarray(shift, np.float32),
        )
        return self.add(place, node, [x], (height, width, conv.out_features))

    def fire(self, place: str, neuron: Callable, *sources: _Signal) -> _Signal:
        shape = sources[0].shape
        if isinstance(neuron, ILIF):
            raise UserError(
                f"{place} sends integers up to {neuron.largest_spike}, and a neuron of NIR one "
                "spike a tick: train with `config.activation`=lif or plif for NIR"
            )
        if not isinstance(neuron, LIF | IF):
            kind = getattr(neuron, "__name__", type(neuron).__name__)
            raise UserError(
                f"{place} is a {kind}, which does not spike, and NIR is written of spiking "
                "networks: convert the network first, with conversion.convert"
            )
        threshold = float(neuron.threshold if isinstance(neuron, LIF) else neuron.threshold[...])
        converted = isinstance(neuron, IF)
        soft = converted or neuron.reset == "soft"
        if soft and not self.lossy:
            start = "begins at half its threshold and " if converted else ""
            what = "its subtraction" if converted else "subtraction of its threshold"
            raise UserError(
                f"{place} {start}is reset by {what}, which NIR can't tell: give "
                "`nir_lossy` to write that into the metadata of the nodes, for "
                "readers that look there; another reader runs another network"
            )
        about = {
            "threshold": threshold,
            "reset": "subtract threshold" if soft else "zero",
            "initial_membrane": threshold / 2 if converted else 0.0,
        }

        def everywhere(value):
            return np.full((*shape[2:], *shape[:2]), value, np.float32)

        below = np.float32(threshold)
        below = below if neuron.strict else np.nextafter(below, np.float32(0))
        membrane = {
            "v_threshold": everywhere(below),
            "v_reset": everywhere(0),
            "metadata": about,
        }
        if converted or neuron.tau == 1:
            node = self.nir.IF(r=everywhere(1 / self.dt), **membrane)
        else:
            leak = 1 - neuron.tau
            node = self.nir.LIF(
                tau=everywhere(self.dt / leak),
                r=everywhere(1 / leak),
                v_leak=everywhere(0),
                **membrane,
            )
        # An edge only passes on: where one must be scaled, a node of its own does it.
        sources = [
            source if source.scale == 1 else self.scaled(f"{place}.residual", source)
            for source in sources
        ]
        return self.add(place, node, sources, shape, threshold if converted else 1.0)

    def scaled(self, place: str, x: _Signal) -> _Signal:
        """What it must be multiplied by, done by a node of its own."""
        height, width, channels = x.shape
        scale = np.full((channels, height, width), x.scale, np.float32)
        return self.add(place, self.nir.Scale(scale), [x], x.shape)

    def pool(self, place: str, x: _Signal, rows: int, columns: int) -> _Signal:
        window = np.array([rows, columns])
        node = self.nir.AvgPool2d(kernel_size=window, stride=window, padding=np.array([0, 0]))
        height, width, channels = x.shape
        return self.add(place, node, [x], (height // rows, width // columns, channels), x.scale)

    def read_out(self, model: nnx.Module, x: _Signal, flatten: bool) -> _Signal:
        """The linear layer, of all positions or of their average."""
        if not flatten:
            x = self.pool("average", x, *x.shape[:2])
        x, order = self.flatten(x)
        hidden = getattr(model, "hidden_layers", None)
        for index, layer in enumerate(hidden.linears if hidden else ()):
            x = self.multiply(f"hidden.linears.{index}", _of_linear(layer), x, order)
            x = self.fire(f"hidden.neurons.{index}", hidden.neurons[index], x)
            order = slice(None)
        return self.multiply("head", _of_linear(model.head), x, order)

    def flatten(self, x: _Signal) -> tuple[_Signal, Any]:
        """(a vector, which of our values each of its are)."""
        height, width, channels = x.shape
        shape, size = np.array([channels, height, width]), height * width * channels
        # From the end: the same axes to who counts that of the batch as one and to who does not.
        node = self.nir.Flatten(shape, start_dim=-3)
        order = np.arange(size).reshape(height, width, channels).transpose(2, 0, 1).ravel()
        return self.add("flatten", node, [x], (size,), x.scale), order

    def multiply(self, place: str, layer: tuple[Any, Any], x: _Signal, order: Any) -> _Signal:
        """A linear layer's kernel and bias; `order` are its inputs as they come."""
        kernel, bias = layer
        weight = np.asarray(kernel, np.float32)[order].T * x.scale
        node = self.nir.Affine(weight=np.float32(weight), bias=np.asarray(bias, np.float32))
        return self.add(place, node, [x], (len(weight),))


def _of_linear(layer: nnx.Linear) -> tuple[Any, Any]:
    return layer.kernel[...], layer.bias[...]


def _resnet(graph: _Graph, model: SpikingResNet, image: _Signal) -> _Signal:
    x = graph.fire("stem.neuron", model.neuron, graph.convolve("stem", model.stem, image))
    if model.stem_pool > 1:
        x = graph.pool("stem.pool", x, model.stem_pool, model.stem_pool)
    for index, block in enumerate(model.blocks):
        place = f"blocks.{index}"
        residual, shortcut = x, block.shortcut
        if isinstance(shortcut, Shortcut):
            if any(side % shortcut.stride for side in x.shape[:2]):
                raise UserError(
                    f"{place} averages a map of {x.shape[0]}x{x.shape[1]} in its shortcut, and NIR "
                    "has no pooling that fills up an odd border: use images whose sides can be "
                    "halved at every stage"
                )
            if shortcut.stride > 1:
                residual = graph.pool(f"{place}.pool", x, shortcut.stride, shortcut.stride)
            shortcut = shortcut.projection
        if shortcut is not None:
            residual = graph.convolve(f"{place}.shortcut", shortcut, residual)
        hidden = graph.convolve(f"{place}.conv1", block.conv1, x)
        hidden = graph.fire(f"{place}.neuron1", block.neuron1, hidden)
        hidden = graph.convolve(f"{place}.conv2", block.conv2, hidden)
        x = graph.fire(f"{place}.neuron2", block.neuron2, hidden, residual)
    return graph.read_out(model, x, flatten=False)


def _vgg(graph: _Graph, model: SpikingVGG, image: _Signal) -> _Signal:
    x = image
    for index, pool in enumerate(model.pools):
        x = graph.convolve(f"convs.{index}", model.convs[index], x)
        x = graph.fire(f"neurons.{index}", model.neurons[index], x)
        if pool > 1:
            x = graph.pool(f"pools.{index}", x, pool, pool)
    return graph.read_out(model, x, flatten=model.flat)


def _mlp(graph: _Graph, model: SpikingMLP, image: _Signal) -> _Signal:
    x, order = graph.flatten(image)
    for index, layer in enumerate(model.layers):
        scale, shift = layer.running()
        folded = layer.conv.kernel[...][0, 0] * scale, shift
        x = graph.multiply(f"layers.{index}", folded, x, order)
        x = graph.fire(f"neurons.{index}", model.neurons[index], x)
        order = slice(None)
    return graph.multiply("head", _of_linear(model.head), x, order)


# `(graph, model, image) -> what the network puts out`, by the class of the network.
BUILDERS: dict[type, Callable] = {
    SpikingResNet: _resnet,
    SpikingVGG: _vgg,
    SpikingMLP: _mlp,
    SEWResNet: sew_graph,
    MSResNet: ms_graph,
}
