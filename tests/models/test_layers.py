import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from seenn_jax.models import layers
from seenn_jax.models.layers import ConvBN, Shortcut, average_pool, linear, max_pool


def conv_bn(in_features, out_features, kernel_size=3, stride=1, dtype=jnp.float32, **kwargs):
    rngs = nnx.Rngs(0)
    return ConvBN(in_features, out_features, kernel_size, stride, dtype=dtype, rngs=rngs, **kwargs)


def convolution(*args, **kwargs):
    """A layer for inference whose BatchNorm changes nothing."""
    layer = conv_bn(*args, **kwargs)
    layer.bn.var[...] = jnp.ones_like(layer.bn.var[...]) - 1e-5
    return nnx.view(layer, use_running_average=True)


def whole_numbers(seed, *shape):
    """Small integers, whose sums of products are exact in float32 in any order."""
    return jnp.asarray(np.random.default_rng(seed).integers(-4, 5, shape), jnp.float32)


# --- Convolution --------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "platform", "many", "sides"),
    [
        (2, "cpu", False, (5, 6)),
        (5, "cpu", False, (5, 6)),
        (5, "cpu", True, (5, 6)),
        (5, "cpu", True, (3, 4)),
        (5, "cpu", True, (2, 2)),
        (5, "default", True, (3, 4)),
    ],
)
def test_gradients_are_those_of_a_plain_convolution(
    channels, platform, many, sides, stride, kernel_size, monkeypatch
):
    """Of few channels and images and of many; the way of CPUs, and that of every other device."""
    monkeypatch.setattr(layers, "MANY_IMAGES", 3 if many else 4)
    if platform == "default":
        monkeypatch.setattr(
            layers.lax, "platform_dependent", lambda *args, default, **_: default(*args)
        )
    graph, state = nnx.split(convolution(channels, 3, kernel_size, stride))
    kernel = whole_numbers(0, kernel_size, kernel_size, channels, 3)
    x = whole_numbers(1, 2, 2, *sides, channels)  # [B, T, H, W, C]

    def ours(x, kernel):
        layer = nnx.merge(graph, state, copy=True)
        layer.conv.kernel[...] = kernel
        return layer(x)

    def plain(x, kernel):
        y = lax.conv_general_dilated(
            x.reshape(-1, *x.shape[2:]),
            kernel,
            (stride, stride),
            [(kernel_size // 2, kernel_size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.reshape(*x.shape[:2], *y.shape[1:])

    cotangent = whole_numbers(2, *jax.eval_shape(plain, x, kernel).shape)

    @jax.jit
    def both(x, kernel, cotangent):
        def value_and_gradients(function):
            y, pull_back = jax.vjp(function, x, kernel)
            return y, pull_back(cotangent)

        return value_and_gradients(ours), value_and_gradients(plain)

    got, expected = both(x, kernel, cotangent)
    chex.assert_trees_all_equal(got, expected)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(expected))


@pytest.mark.parametrize("many", [False, True])
def test_many_images_are_trained_by_matrix_products_on_a_cpu(many, monkeypatch):
    monkeypatch.setattr(layers, "MANY_IMAGES", 3 if many else 4)
    layer = convolution(5, 3)
    x = whole_numbers(1, 2, 2, 2, 2, 5)
    lowered = jax.jit(jax.grad(lambda x: jnp.sum(layer(x) ** 2))).trace(x)
    of = {p: lowered.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")}
    assert ("stablehlo.convolution" in of["cpu"]) is not many
    assert "stablehlo.convolution" in of["cuda"]


@pytest.mark.parametrize("channels", [1, 5])
def test_padding_is_symmetric_at_stride_2(channels):
    layer = convolution(channels, 1, stride=2)
    x = jnp.tile(jnp.arange(1.0, 17).reshape(1, 1, 4, 4, 1), channels)

    def shifted_by(row, column):
        layer.conv.kernel[...] = jnp.zeros((3, 3, channels, 1)).at[row, column, 0].set(1)
        return layer(x)[0, 0, :, :, 0]

    # Output (i, j) sees rows 2i - 1 to 2i + 1; "SAME" would see 2i to 2i + 2.
    np.testing.assert_array_equal(shifted_by(0, 0), [[0, 0], [0, 6]])
    np.testing.assert_array_equal(shifted_by(1, 1), [[1, 3], [9, 11]])
    np.testing.assert_array_equal(shifted_by(2, 2), [[6, 8], [14, 16]])


@pytest.mark.parametrize(("stride", "expected"), [(1, (7, 4)), (2, (4, 2))])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("channels", [2, 5])
def test_size_of_the_output(channels, kernel_size, stride, expected):
    layer = nnx.view(conv_bn(channels, 3, kernel_size, stride), use_running_average=True)
    y = jax.eval_shape(layer, jax.ShapeDtypeStruct((2, 3, 7, 4, channels), jnp.float32))
    assert y.shape == (2, 3, *expected, 3)


@pytest.mark.parametrize("sides", [(2, 2), (1, 3), (4, 1), (2, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_small_maps_of_a_layer_for_inference(sides, stride, monkeypatch):
    """Sums are exact here, so that the matrix product of a CPU gives what a convolution does."""
    layer = convolution(5, 7, stride=stride)
    layer.conv.kernel[...] = whole_numbers(0, 3, 3, 5, 7)
    x = whole_numbers(1, 3, 2, *sides, 5)
    expected = layer(x)
    calls = []
    monkeypatch.setattr(
        layers,
        "_convolve_few",
        lambda *args, f=layers._convolve_few, **how: calls.append(1) or f(*args, **how),
    )
    layer.freeze()
    chex.assert_trees_all_equal(layer(x), expected)
    pixels = np.prod([-(-side // stride) for side in sides])
    assert len(calls) == (pixels <= layers.FEW_PIXELS and jax.default_backend() == "cpu")


def test_bias_is_there_where_asked_for():
    assert conv_bn(2, 3).conv.bias is None
    layer = convolution(2, 3, bias=True)
    layer.conv.bias[...] = jnp.array([1.0, 2, 3])
    np.testing.assert_array_equal(layer(jnp.zeros((1, 1, 1, 1, 2))), [[[[[1, 2, 3]]]]])


# --- BatchNorm ----------------------------------------------------------------------------------


def test_batchnorm_by_hand():
    layer = conv_bn(1, 1, kernel_size=1)
    layer.conv.kernel[...] = jnp.full((1, 1, 1, 1), 2.0)
    layer.bn.scale[...] = jnp.array([3.0])
    layer.bn.bias[...] = jnp.array([1.0])
    # [B=2, T=2, 1, 1, 1]; twice that has mean 6 and variance 20.
    x = jnp.array([0.0, 2, 4, 6]).reshape(2, 2, 1, 1, 1)
    y = layer(x)
    deviation = np.sqrt(20 + 1e-5)
    expected = 3 * (np.array([0, 4, 8, 12]) - 6) / deviation + 1
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-5)
    # Running statistics move a tenth of the way.
    np.testing.assert_allclose(layer.bn.mean[...], [0.1 * 6], rtol=1e-6)
    np.testing.assert_allclose(layer.bn.var[...], [0.9 + 0.1 * 20], rtol=1e-6)

    y = nnx.view(layer, use_running_average=True)(x)
    expected = 3 * (np.array([0, 4, 8, 12]) - 0.6) / np.sqrt(2.9 + 1e-5) + 1
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(layer.bn.mean[...], [0.6], rtol=1e-6)


def test_statistics_are_shared_over_batch_and_time():
    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, (2, 3, 4, 4, 2)), jnp.float32)
    # Each tick and each sample has a level of its own, so that statistics of one would differ.
    x = x + 5 * jnp.arange(6.0).reshape(2, 3, 1, 1, 1)
    in_time, flat = conv_bn(2, 3), conv_bn(2, 3)
    y = in_time(x)
    expected = flat(x.reshape(6, 1, 4, 4, 2))
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(in_time.bn.mean[...], flat.bn.mean[...], rtol=1e-5)
    np.testing.assert_allclose(in_time.bn.var[...], flat.bn.var[...], rtol=1e-5)

    y = np.asarray(in_time.conv(x))
    np.testing.assert_allclose(in_time.bn.mean[...], 0.1 * y.mean((0, 1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(in_time.bn.var[...], 0.9 + 0.1 * y.var((0, 1, 2, 3)), rtol=1e-4)


def test_bfloat16_activations_have_float32_statistics():
    layer = conv_bn(1, 2, kernel_size=1, dtype=jnp.bfloat16)
    layer.conv.kernel[...] = jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2)
    # Exact in bfloat16, their mean 1.5048828125 and its double are not, nor are the variances.
    x = jnp.ones((4, 4, 8, 8, 1), jnp.bfloat16).at[:2].set(2).at[0, 0, 0, :5].set(3)
    y = layer(x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype("float32")}

    exact = np.asarray(x, np.float64).ravel()
    assert exact.mean() == 1.5048828125
    np.testing.assert_allclose(layer.bn.mean[...], 0.1 * exact.mean() * np.array([1, 2]), rtol=1e-6)
    np.testing.assert_allclose(
        layer.bn.var[...], 0.9 + 0.1 * exact.var() * np.array([1, 4]), rtol=1e-6
    )
    # Normalised in float32, then rounded once.
    expected = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    rounded = jnp.asarray(expected, jnp.float32).astype(jnp.bfloat16)
    np.testing.assert_allclose(
        np.asarray(y[..., 0], np.float32).ravel(), np.asarray(rounded, np.float32), rtol=1e-6
    )


def test_running_statistics_are_not_rounded_to_bfloat16():
    layer = conv_bn(1, 1, kernel_size=1, dtype=jnp.bfloat16)
    layer.conv.kernel[...] = jnp.ones((1, 1, 1, 1))
    # A mean and a bias that bfloat16 has not, whose difference it has.
    layer.bn.mean[...] = jnp.array([256.53125])
    layer.bn.bias[...] = jnp.array([0.53125 + 2**-10])
    layer.bn.var[...] = jnp.ones(1) - 1e-5
    y = nnx.view(layer, use_running_average=True)(jnp.full((1, 1, 1, 1, 1), 256, jnp.bfloat16))
    assert float(y.squeeze()) == 2**-10


def test_gradients_of_bfloat16_layers_are_float32():
    layer = conv_bn(5, 3, dtype=jnp.bfloat16)
    x = whole_numbers(0, 2, 2, 4, 4, 5).astype(jnp.bfloat16)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params):
        y = nnx.merge(graph, params, rest, copy=True)(x)
        return jnp.sum(y.astype(jnp.float32) ** 3)

    gradients = jax.jit(jax.grad(loss))(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradients))


# --- Inference: folded and quantised layers -----------------------------------------------------


def trained(bias=False):
    """A layer with parameters and statistics that fold exactly."""
    layer = conv_bn(1, 2, bias=bias)
    layer.conv.kernel[...] = whole_numbers(0, 3, 3, 1, 2)
    layer.bn.mean[...] = jnp.array([1.0, -2])
    layer.bn.var[...] = jnp.array([4, 0.25]) - 1e-5
    layer.bn.scale[...] = jnp.array([3.0, 0.5])
    layer.bn.bias[...] = jnp.array([0.25, 1])
    if bias:
        layer.conv.bias[...] = jnp.array([-1.0, 2])
    return layer


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_for_inference_is_the_one_of_training(bias):
    layer = trained(bias)
    kernel = np.asarray(layer.conv.kernel[...])
    x = whole_numbers(1, 2, 2, 4, 3, 1)
    expected = nnx.view(layer, use_running_average=True)(x)
    layer.freeze()
    np.testing.assert_array_equal(layer(x), expected)
    np.testing.assert_array_equal(layer.conv.kernel[...], kernel)
    scale, shift = layer.running()
    np.testing.assert_array_equal(scale, [1.5, 1])  # 3 / sqrt(4) and 0.5 / sqrt(0.25)
    # 0.25 + (bias - 1) * 1.5 and 1 + (bias + 2)
    np.testing.assert_array_equal(shift, [-2.75, 5] if bias else [-1.25, 3])


def test_the_bias_of_a_bfloat16_layer_is_added_in_float32():
    layer = conv_bn(1, 1, kernel_size=1, bias=True, dtype=jnp.bfloat16)
    layer.conv.kernel[...] = jnp.ones((1, 1, 1, 1))
    # bfloat16 has 256, and no number between it and 258.
    layer.conv.bias[...] = jnp.array([0.5])
    layer.bn.mean[...] = jnp.array([256.0])
    layer.bn.var[...] = jnp.ones(1) - 1e-5
    x = jnp.full((1, 1, 1, 1, 1), 256, jnp.bfloat16)
    assert float(nnx.view(layer, use_running_average=True)(x).squeeze()) == 0.5
    layer.freeze()
    assert float(layer(x).squeeze()) == 0.5


@pytest.mark.parametrize("stride", [1, 2])
def test_quantised_layer_by_hand(stride):
    layer = conv_bn(2, 2, stride=stride, dtype=jnp.bfloat16)
    layer.bn.var[...] = jnp.ones(2) - 1e-5
    layer.bn.bias[...] = jnp.array([0.5, 0])
    # Only the centre weighs. Scales 127/127 = 1 and 254/127 = 2: 99.6 is rounded to 100, 3 / 2 to 2
    weights = jnp.array([[127.0, 3], [99.6, -254]])
    layer.conv.kernel[...] = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(weights)
    layer.quantize()
    assert layer.conv.kernel.dtype == jnp.int8
    np.testing.assert_array_equal(layer.conv.kernel[1, 1], [[127, 2], [100, -127]])
    np.testing.assert_array_equal(layer.running()[0], [1, 2])

    spikes = jnp.array([[1, 0], [1, 1]], jnp.int8).reshape(1, 2, 1, 1, 2)
    y = layer(jnp.tile(spikes, (1, 1, 3, 3, 1)))
    assert y.dtype == jnp.bfloat16
    assert y.shape == (1, 2, *((3, 3) if stride == 1 else (2, 2)), 2)
    # 127 + 0.5 and 2 * 2; 227 + 0.5, which bfloat16 rounds to even, and 2 * (2 - 127)
    np.testing.assert_array_equal(y[0, :, 1, 1].astype(jnp.float32), [[127.5, 4], [228, -250]])


def test_a_channel_without_weights_can_be_quantised():
    layer = conv_bn(2, 2)
    layer.conv.kernel[...] = jnp.zeros((3, 3, 2, 2))
    layer.bn.bias[...] = jnp.array([0.5, -1])
    layer.quantize()
    y = layer(jnp.ones((1, 1, 1, 1, 2), jnp.int8))
    np.testing.assert_array_equal(y.squeeze(), [0.5, -1])


@pytest.mark.parametrize("quantised", [False, True])
def test_a_kernel_lies_as_a_gpu_reads_it(quantised, monkeypatch):
    layer = nnx.view(ConvBN(4, 8, dtype=jnp.float32, rngs=nnx.Rngs(0)), use_running_average=True)
    frozen = ConvBN.quantize if quantised else ConvBN.freeze
    plain, laid, of_numpy, several = (nnx.clone(layer) for _ in range(4))
    frozen(plain)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    of_numpy.conv.kernel[...] = np.asarray(of_numpy.conv.kernel[...])
    frozen(laid)
    frozen(of_numpy)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    frozen(several)
    orders = [of.conv.kernel[...].format.layout.major_to_minor for of in (plain, laid, several)]
    assert orders == [(0, 1, 2, 3), (3, 0, 1, 2), (0, 1, 2, 3)]
    monkeypatch.undo()
    x = jnp.ones((1, 1, 8, 8, 4), jnp.int8 if quantised else jnp.float32)
    wanted = jax.jit(lambda model: model(x))(plain)
    for model in (laid, of_numpy):
        np.testing.assert_array_equal(jax.jit(lambda model: model(x))(model), wanted)


def test_read_out_of_low_precision_features_is_float32():
    logits = linear(4, 3, rngs=nnx.Rngs(0))(jnp.ones((2, 4), jnp.bfloat16))
    assert logits.dtype == jnp.float32


# --- Pooling and blocks -------------------------------------------------------------------------


def test_average_pool_by_hand():
    x = jnp.arange(1.0, 16).reshape(1, 1, 3, 5, 1)
    # 1 2 3 4 5 | 6 7 8 9 10 | 11 ...: the last row and column are left out.
    pooled = average_pool(x, 2)
    np.testing.assert_array_equal(pooled[0, 0, :, :, 0], [[4, 6]])
    np.testing.assert_array_equal(average_pool(x, 1), x)


def test_average_pool_of_integer_spikes_has_quarters():
    x = jnp.array([[0, 1, 1, 1], [0, 0, 1, 0]], jnp.int8).reshape(1, 1, 2, 4, 1)
    np.testing.assert_array_equal(average_pool(x, 2).ravel(), [0.25, 0.75])
    assert average_pool(x, 1).dtype == jnp.int8


@pytest.mark.parametrize(("largest", "dtype"), [(4, "bfloat16"), (64, "bfloat16"), (65, "float32")])
def test_average_pool_of_larger_integers_is_exact(largest, dtype):
    x = jnp.array([largest, largest, largest, largest - 1], jnp.int8).reshape(1, 1, 2, 2, 1)
    found = average_pool(x, 2, largest)
    assert found.dtype == dtype
    assert float(found[0, 0, 0, 0, 0]) == largest - 0.25
    assert float(average_pool(x, 2)[0, 0, 0, 0, 0]) == largest - 0.25


def test_average_pool_keeps_batch_time_and_channels_apart():
    x = jnp.arange(12.0).reshape(2, 3, 1, 1, 2)
    np.testing.assert_array_equal(average_pool(jnp.tile(x, (1, 1, 2, 2, 1)), 2), x)


def test_shortcut_of_an_odd_map_averages_what_there_is():
    shortcut = Shortcut(1, 1, 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    shortcut.projection.conv.kernel[...] = jnp.ones((1, 1, 1, 1))
    shortcut.projection.bn.var[...] = jnp.ones(1) - 1e-5
    shortcut = nnx.view(shortcut, use_running_average=True)
    x = jnp.arange(1.0, 16).reshape(1, 1, 3, 5, 1)
    # The last row is 11 ... 15, the last column 5, 10, 15.
    expected = [[4, 6, 7.5], [11.5, 13.5, 15]]
    np.testing.assert_allclose(shortcut(x)[0, 0, :, :, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(shortcut(x[:, :, :2, :4])[0, 0, :, :, 0], [[4, 6]], rtol=1e-6)


@pytest.mark.parametrize("sides", [(5, 6), (4, 1)])
def test_max_pooling_and_its_gradient_by_a_loop(sides):
    x = whole_numbers(0, 1, 2, *sides, 3) - 5  # below the zero of a padding that would be one
    pooled, pull_back = jax.vjp(max_pool, x)
    cotangent = whole_numbers(1, *pooled.shape)
    expected, gradient = np.zeros(pooled.shape), np.zeros(x.shape)
    for b, t, h, w, c in np.ndindex(*pooled.shape):
        window = [
            (x[b, t, i, j, c].item(), (b, t, i, j, c))
            for i in range(max(2 * h - 1, 0), min(2 * h + 2, sides[0]))
            for j in range(max(2 * w - 1, 0), min(2 * w + 2, sides[1]))
        ]
        largest, place = max(window, key=lambda each: each[0])  # the first of them
        expected[b, t, h, w, c] = largest
        gradient[place] += cotangent[b, t, h, w, c]
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_array_equal(pull_back(cotangent)[0], gradient)
    np.testing.assert_array_equal(max_pool(x.astype(jnp.int8)), expected)
