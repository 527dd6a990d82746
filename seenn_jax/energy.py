"""What a network costs: multiply-accumulates (MACs), counted in the program that runs."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core


def macs(function: Callable, *arguments: Any) -> int:
    """Multiply-accumulates of the convolutions and matrix products of one call, all dense.

    The arguments may be `jax.ShapeDtypeStruct`s; nothing is computed. A stem of few channels counts
    with the zeros that fill it up to a multiple of 8 (`layers`), since it runs with them.
    """
    return _macs(jax.make_jaxpr(function)(*arguments))


def _macs(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            *window, features, _ = equation.invars[1].aval.shape  # HWIO
            total += math.prod((*equation.outvars[0].aval.shape, *window, features))
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[i] for i in contracted)
            total += depth * equation.outvars[0].aval.size
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += _macs(inner)
    return total
