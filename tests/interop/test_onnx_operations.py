"""Each operation gives what JAX gives, by ONNX's own reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from seenn_jax.errors import UserError
from seenn_jax.interop.onnx import graph_of
from seenn_jax.interop.onnx_operations import OPERATIONS

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")

X = np.random.default_rng(0).normal(size=(2, 3, 4, 6, 1)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 2, 6, 4)).astype(np.float32)
LAYOUT = ("NHWC", "HWIO", "NHWC")


def graph(function, *values):
    arguments = [jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)) for x in values]
    names = [f"x{i}" for i in range(len(values))]
    model = graph_of(function, arguments, names, ["y"], {})
    onnx.checker.check_model(model, full_check=True)
    return model, dict(zip(names, values, strict=True))


def of_both(function, *values):
    model, given = graph(lambda *x: (function(*x),), *values)
    [found] = reference.ReferenceEvaluator(model).run(None, given)
    return found, np.asarray(function(*map(jnp.asarray, values)))


ROWS = {
    "elementwise": lambda x: jnp.tanh(x) + jnp.abs(x) * jnp.exp(-jnp.square(x)) / 2,
    "broadcast": lambda x: x + jnp.arange(24.0).reshape(4, 6, 1) - x[:, :1],
    "round, clamp": lambda x: lax.clamp(-1.0, jnp.round(2 * x), 2.0),
    "select": lambda x: jnp.where((x > 0) & (x != 1), x, -1.0),
    "comparisons": lambda x: (x >= 0).astype(jnp.float32) + (x < 1) * jnp.int32(2),
    "shapes": lambda x: jnp.moveaxis(x[..., 0], 1, 3).reshape(2, 24, 3),
    "pad": lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1), (0, 0))),
    "pad by the edge": lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), "edge"),
    "slice, concatenate": lambda x: jnp.concatenate([x[:, :, ::2], x[:, :, 1:3]], 2),
    "sum": lambda x: x.mean((2, 3)),
    "product": lambda x: x[..., 0] @ KERNEL[0, 0],
    "pool": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 3, 1), (1, 1, 2, 3, 1), "VALID"),
    "convolution": lambda x: lax.conv_general_dilated(
        x[..., 0], KERNEL, (2, 1), ((1, 1), (0, 1)), dimension_numbers=LAYOUT
    ),
    "scan of a tick": lambda x: lax.scan(lambda v, y: (v + y, v * y), x[0], x[1:])[1],
    "platform": lambda x: lax.platform_dependent(x, tpu=jnp.negative, default=jnp.abs),
    "constants": lambda x: x * jnp.float32(2) + jnp.zeros((6, 1)),
}


@pytest.mark.parametrize("name", ROWS)
def test_it_is_what_jax_computes(name):
    found, ours = of_both(ROWS[name], X)
    assert (found.shape, found.dtype) == (ours.shape, ours.dtype)
    np.testing.assert_allclose(found, ours, rtol=1e-5, atol=1e-6)


def test_sums_of_integers_are_exact():
    spikes = np.random.default_rng(0).integers(0, 2, (2, 5, 5, 6)).astype(np.int8)
    kernel = np.random.default_rng(1).integers(-127, 128, (3, 3, 6, 4)).astype(np.int8)

    def convolve(x):
        options = {"dimension_numbers": LAYOUT, "preferred_element_type": jnp.int32}
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **options)

    found, ours = of_both(convolve, spikes)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, ours)


def test_a_constant_that_repeats_itself_is_kept_once():
    model, _ = graph(lambda x: (x * jnp.full(x.shape, 3.0),), X)
    assert [each.dims for each in model.graph.initializer] == [[1] * X.ndim]


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: x[..., 0] @ x[..., 0].swapaxes(2, 3), "'dot_general' other than of rows"),
        (lambda x: lax.round(x), "'round' of halves"),
        (lambda x: lax.pad(x, 0.0, [(0, 0, 1)] * 5), "'pad' between pixels"),
        (
            lambda x: lax.reduce_window(x, 0.0, lax.add, (2,) * 5, (2,) * 5, "SAME"),
            "'reduce_window_sum' other than over",
        ),
        (
            lambda x: lax.conv_general_dilated(x[..., 0], x[..., 0], (1, 1), "SAME"),
            "'conv_general_dilated' other than of images",
        ),
        (lambda x: lax.scan(lambda v, y: (v + y, y), x[0], x)[0], "the operation 'scan'"),
    ],
)
def test_what_is_not_written(function, match):
    with pytest.raises(UserError, match=match):
        graph(lambda x: (function(x),), X)


def test_every_row_takes_what_jax_calls_so():
    known = {name.removesuffix("_p") for name in dir(lax) if name.endswith("_p")}
    named = {"add_any", "copy_p", "stop_gradient", "name"}  # of other modules
    assert OPERATIONS.keys() - known - named == set()
