"""NIR graphs of residual networks that add spikes (SEW-ResNet) or currents (MS-ResNet).

A sum is a `nir.Scale` by 1 that several edges lead to: NIR adds them.
"""

import operator
from typing import Any

import numpy as np

from seenn_jax.errors import UserError


def sew_graph(graph: Any, model: Any, image: Any) -> Any:
    """As a row of `write.BUILDERS`, for `SEWResNet`."""
    _check(model, model.large_images)
    if model.block.connect is not operator.add:
        raise UserError(
            f"{type(model).__name__} connects spikes otherwise than by their sum, and NIR only "
            "adds: choose a network that adds them, such as sew_resnet18_small"
        )
    x = graph.fire("stem.neuron", model.neuron, graph.convolve("stem", model.stem, image))
    for index, block in enumerate(model.blocks):
        place, y = f"blocks.{index}", x
        for number, conv in enumerate(block.convs):
            y = graph.convolve(f"{place}.convs.{number}", conv, y)
            y = graph.fire(f"{place}.neurons.{number}", block.neurons[number], y)
        if block.shortcut is not None:
            x = graph.convolve(f"{place}.shortcut", block.shortcut, x)
            number = len(block.convs)
            x = graph.fire(f"{place}.neurons.{number}", block.neurons[number], x)
        x = _sum(graph, place, x, y)
    return graph.read_out(model, x, flatten=False)


def ms_graph(graph: Any, model: Any, image: Any) -> Any:
    """As a row of `write.BUILDERS`, for `MSResNet`."""
    _check(model, model.as_i2e)
    x = graph.convolve("stem", model.stem, image)
    for index, block in enumerate(model.blocks):
        place, y = f"blocks.{index}", x
        for number, conv in enumerate(block.convs):
            y = graph.fire(f"{place}.neurons.{number}", block.neurons[number], y)
            y = graph.convolve(f"{place}.convs.{number}", conv, y)
        if block.shortcut is not None:
            x = graph.convolve(f"{place}.shortcut", block.shortcut, x)
        x = _sum(graph, place, x, y)
    return graph.read_out(model, graph.fire("last", model.neuron, x), flatten=False)


def _check(model: Any, pools: bool) -> None:
    if pools:
        raise UserError(
            f"{type(model).__name__} has max pooling, and NIR has none: choose a network without, "
            "such as sew_resnet18_small or ms_resnet18"
        )


def _sum(graph: Any, place: str, *signals: Any) -> Any:
    height, width, channels = signals[0].shape
    signals = tuple(
        signal if signal.scale == 1 else graph.scaled(f"{place}.scales.{number}", signal)
        for number, signal in enumerate(signals)
    )
    ones = np.ones((channels, height, width), np.float32)
    return graph.add(f"{place}.sum", graph.nir.Scale(ones), signals, signals[0].shape)
