"""Spiking transformers: their published sizes, attention, exits, gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.energy import layers, operations
from seenn_jax.errors import UserError
from seenn_jax.models import MODELS, build_model
from seenn_jax.models.activations import ReLU
from seenn_jax.models.neurons import ILIF, LIF
from seenn_jax.models.precision import LARGEST, most_spikes, to_int8
from seenn_jax.models.transformers import QKFormerSmall, Spikformer, TokenProducts, TokenSums
from tests.models import families


class TinySpikformer(Spikformer):
    depth = 1


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        (
            "qkformer",
            6_706_234,  # the authors' log of CIFAR-10
            # By hand: maps of 32x32, 16x16 and 8x8, where an embedding halves them last.
            32**2 * (9 * (3 * 48 + 48 * 96 + 96 * 192 + 192**2) + 48 * 96 + 11 * 96**2 + 96)
            + 16**2 * (9 * (192 * 384 + 384**2) + 96 * 192 + 11 * 192**2 + 192)
            + 8**2 * (192 * 384 + 2 * 12 * 384**2 + 2 * 2 * 384 * 48)
            + 3840,
        ),
        # 9.32 M in the paper: the sum by hand. Embedding, four blocks, read-out.
        pytest.param(
            "spikformer",
            9 * (3 * 48 + 48 * 96 + 96 * 192 + 192 * 384 + 384**2)
            + 2 * (48 + 96 + 192 + 2 * 384)
            + 4 * (4 * (384**2 + 3 * 384) + 2 * 4 * 384**2 + 3 * (4 + 1) * 384)
            + 3850,
            32**2 * 9 * (3 * 48 + 48 * 96 + 96 * 192)
            + 16**2 * 9 * 192 * 384
            + 8**2 * (9 * 384**2 + 4 * 12 * 384**2 + 4 * 2 * 384 * 48)
            + 3840,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_published_sizes(name, parameters, macs):
    shape = (32, 32, 3)
    model = nnx.eval_shape(lambda: build_model(name, 48, image_shape=shape, num_classes=10))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert sum(sizes) == parameters
    found = layers(nnx.view(model, use_running_average=True), shape)
    assert sum(layer.macs for layer in found) == macs
    assert f"{macs / 1e9:.3f} GMAC" in MODELS[name].__doc__
    assert [layer.place for layer in found if layer.receives != "spikes"] == ["stem", "head"]
    attention = [layer.macs for layer in found if "attend" in layer.place]
    both = 2 * 64 * 384 * 48  # 64 tokens, 8 heads of 48 channels, two products
    sums = [32 * 32 * 96, 16 * 16 * 192]  # a sum over all channels
    assert attention == ([*sums, both, both] if name == "qkformer" else 4 * [both])


def spikes(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2, shape), jnp.float32)


def test_token_attention_by_hand():
    queries = spikes(0, 2, 3, 2, 2, 6)
    layer = TokenSums(2, jnp.bfloat16)
    found = layer(queries)
    assert found.dtype == jnp.bfloat16
    for head in (0, 1):
        expected = sum(queries[..., 3 * head + c] for c in range(3))
        np.testing.assert_array_equal(found[..., head, 0], expected)
    assert layer.macs(queries) == 2 * 2 * 6
    np.testing.assert_array_equal(layer.operations(queries), queries.sum((2, 3, 4)))


def test_self_attention_by_hand():
    q, k, v = (spikes(seed, 2, 3, 2, 2, 6) for seed in range(3))
    layer = TokenProducts(2, jnp.float32)
    found = np.asarray(layer((q, k, v)))
    for b, t, head in np.ndindex(2, 3, 2):
        part = slice(3 * head, 3 * head + 3)
        tokens = (np.asarray(x[b, t]).reshape(4, 6)[:, part] for x in (q, k, v))
        one, other, values = tokens
        expected = one @ other.T @ values / 8
        np.testing.assert_array_equal(found[b, t].reshape(4, 6)[:, part], expected)
    added = layer.operations((q, k, v))
    np.testing.assert_array_equal(added, 3 * (q.sum((2, 3, 4)) + k.sum((2, 3, 4))))
    np.testing.assert_array_equal(TokenProducts(2, jnp.float32, 1.0)((q, k, v)), 8 * found)
    integers = layer(tuple(x.astype(jnp.int8) for x in (q, k, v)))
    np.testing.assert_array_equal(integers, found)


def test_products_of_integers_are_not_those_of_binary_ticks():
    """A 2 is a spike in each of two ticks: of two tokens, 8 + 8 and twice 1 + 1."""
    one = jnp.ones((1, 1, 1, 2, 1))
    multiply, add = TokenProducts(1, jnp.float32, 1.0), TokenSums(1, jnp.float32)
    assert multiply((2 * one,) * 3).ravel().tolist() == [16, 16]
    assert (2 * multiply((one,) * 3)).ravel().tolist() == [4, 4]
    np.testing.assert_array_equal(add(2 * one), 2 * add(one))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [QKFormerSmall, TinySpikformer])
def test_every_method_and_int8(kind, monkeypatch):
    families.check_methods(*families.exact(monkeypatch, kind))


@pytest.mark.parametrize(("kind", "largest"), [(QKFormerSmall, 11), (TinySpikformer, 31)])
def test_int8_holds_what_attention_makes_of_integers(kind, largest):
    """Keys times a token's neuron, up to 11 x 11; or 4 spikes that are added, up to 4 x 31."""

    def network(largest):
        kinds = {"image_shape": (8, 8, 2), "num_classes": 3, "dtype": jnp.float32}
        neuron = ILIF(largest_spike=largest)
        return nnx.eval_shape(lambda: kind(2, **kinds, neuron=neuron, rngs=nnx.Rngs(0)))

    most = {QKFormerSmall: 144, TinySpikformer: 128}[kind]
    assert 0.8 * most < most_spikes(network(largest)) <= LARGEST
    with pytest.raises(UserError, match=rf"int8 holds numbers up to 127, .* up to {most} spikes"):
        to_int8(network(largest + 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [QKFormerSmall, TinySpikformer])
def test_gradients(kind):
    families.check_gradients(kind, LIF())
    families.check_differences(kind, ReLU())


def test_a_sum_of_two_spikes_counts_as_two(monkeypatch):
    model, images = families.exact(monkeypatch, QKFormerSmall)
    model = nnx.view(model, use_running_average=True)
    seen = {}

    def neuron(place, neuron):
        def fire(currents, v=None):
            seen[place], v = neuron(currents, v)
            return seen[place], v

        return fire

    watched = nnx.clone(model)
    watched.replace_neurons(neuron)

    @jax.jit
    def count(images):
        found, rates = operations(watched, images[:2], 2)
        return found, rates, dict(seen)

    found, _, fired = count(images)
    # The query's 1x1 convolution gets what conv1 and the shortcut of the embedding put out.
    spikes = (fired["blocks.0.conv1"] + fired["blocks.0.shortcut"]).sum((2, 3, 4))
    assert (fired["blocks.0.conv1"] * fired["blocks.0.shortcut"]).sum() > 0
    np.testing.assert_array_equal(found["blocks.1.query.layer"], 12 * spikes)
    queries = fired["blocks.1.query"].sum((2, 3, 4))
    np.testing.assert_array_equal(found["blocks.1.attend.layer"], queries)
