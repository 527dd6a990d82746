"""Spiking transformers: QKFormer (Zhou et al., NeurIPS 2024), Spikformer (Zhou et al., ICLR 2023).

As in zhouchenlin2096/QKFormer and ZK-Zhou/spikformer. Neurons there halve the currents, v = v / 2 +
I / 2, and in attention they fire at half the threshold of the others. Here currents are as they
are, which BatchNorm scales as it learns to, so that one threshold is the same to attention.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, Num

from seenn_jax.models.layers import ConvBN, linear, max_pool
from seenn_jax.models.neurons import fire, own

HEADS = 8  # fewer where the channels can't be shared among them
SCALE = 0.125  # of the products of queries, keys and values, in the papers
EXPANSION = 4  # channels within an MLP in those outside


class TokenSums(nnx.Module):
    """How many queries of each head fire at each token, [B, T, H, W, C] -> [B, T, H, W, heads, 1].

    There are no weights: each spike is one addition.
    """

    def __init__(self, heads, dtype):
        self.heads, self.dtype = heads, dtype

    def __call__(self, queries):
        """Run all ticks."""
        wide = jnp.promote_types(self.dtype, jnp.float32)
        split = _split(queries, self.heads)
        return split.sum(-1, keepdims=True, dtype=wide).astype(self.dtype)

    def macs(self, queries: Num[Array, "B T H W C"]) -> int:
        """Dense, of one image and timestep."""
        return math.prod(queries.shape[2:])

    def operations(self, queries: Num[Array, "B T H W C"]) -> Int[Array, "B T"]:
        """Additions at each timestep."""
        return _spikes(queries)


class TokenProducts(nnx.Module):
    """(queries, keys, values) of [B, T, H, W, C] -> scale queries (keys^T values), of each head.

    Linear in the tokens. All three are spikes: a key adds the values of its token to its row, and a
    query adds its row to its token.
    """

    def __init__(self, heads, dtype, scale=SCALE):
        self.heads, self.dtype, self.scale = heads, dtype, scale

    def __call__(self, spikes):
        """Run all ticks."""
        wide = jnp.promote_types(self.dtype, jnp.float32)  # their sums are exact in it
        q, k, v = (_split(x.astype(wide), self.heads) for x in spikes)
        multiply = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
        rows = multiply("btxync,btxynd->btncd", k, v)
        products = multiply("btxync,btncd->btxynd", q, rows)
        return (self.scale * products).reshape(spikes[0].shape).astype(self.dtype)

    def macs(self, spikes: tuple[Num[Array, "B T H W C"], ...]) -> int:
        """Dense, of one image and timestep."""
        return 2 * math.prod(spikes[0].shape[2:]) * (spikes[0].shape[-1] // self.heads)

    def operations(self, spikes: tuple[Num[Array, "B T H W C"], ...]) -> Int[Array, "B T"]:
        """Additions at each timestep."""
        q, k, _ = spikes
        return (_spikes(q) + _spikes(k)) * (q.shape[-1] // self.heads)


def _split(x: Num[Array, "B T H W C"], heads: int) -> Num[Array, "B T H W heads c"]:
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def _spikes(x: Num[Array, "B T H W C"]) -> Int[Array, "B T"]:
    return jnp.sum(x, (2, 3, 4), dtype=jnp.int32)


class Unit(nnx.Module):
    """A layer and its neuron; `pool`: a max pool of the "currents" before or "spikes" after it."""

    def __init__(self, layer, neuron, pool=None):
        self.layer, self.neuron, self.pool = layer, own(neuron), pool

    def __call__(self, x, v=None):
        """Return (spikes, membranes) of all ticks of `x`, from membranes `v` (None: at rest)."""
        currents = self.layer(x)
        currents = max_pool(currents) if self.pool == "currents" else currents
        spikes, v = fire(self.neuron, currents, v)
        return (max_pool(spikes) if self.pool == "spikes" else spikes), v


class Ticks:
    """Runs units one after the other, each from its membranes, and gathers those after the ticks.

    Args:
      membranes: of each unit in the order in which they run; None: at rest.
    """

    def __init__(self, membranes: tuple | None):
        self.before = itertools.repeat(None) if membranes is None else iter(membranes)
        self.after: list[Any] = []

    def __call__(self, unit: Callable, x: Any) -> Array:
        """The spikes of `unit(x, v)`."""
        spikes, v = unit(x, next(self.before))
        self.after.append(v)
        return spikes


class Block(nnx.Module):
    """Units, and how they run: `block(x, ticks) -> spikes`.

    Attributes:
      names: of the units, in the order in which they run.
    """

    names: tuple[str, ...]

    def units(self) -> Iterator[tuple[str, Unit]]:
        """Each by its name, as they run."""
        for name in self.names:
            yield name, getattr(self, name)


def _makers(neuron, dtype, rngs) -> tuple[Callable, Callable]:
    """`(layer, pool) -> unit`, and `(in_features, out_features, side, stride) -> unit`."""

    def convolution(*sizes, pool=None, bias=False):
        layer = ConvBN(*(sizes if len(sizes) > 2 else (*sizes, 1)), bias=bias, **kinds)
        return Unit(layer, neuron, pool)

    kinds = {"dtype": dtype, "rngs": rngs}
    return functools.partial(Unit, neuron=neuron), convolution


class Embedding(Block):
    """3x3 conv-BN-neuron, twice and with a max pool where it halves the map; 1x1 shortcut, added.

    QKFormer's patch embedding with deformed shortcut.
    """

    def __init__(self, in_features, features, halves, **kinds):
        _, convolution = _makers(**kinds)
        self.names = ("conv1", *(["conv2"] if halves else []), "shortcut")
        self.conv1 = convolution(in_features, features, 3)
        if halves:
            self.conv2 = convolution(features, features, 3, pool="currents")
        self.shortcut = convolution(in_features, features, 1, 2 if halves else 1)

    def __call__(self, x, ticks):
        """Spikes of all ticks of `x`."""
        *convs, (_, shortcut) = self.units()
        spikes = x
        for _, unit in convs:
            spikes = ticks(unit, spikes)
        return spikes + ticks(shortcut, x)


class Patches(Block):
    """Spikformer's patch splitting: 3x3 conv-BN-neuron, two max pools, and one more, added."""

    names = ("conv1", "conv2", "conv3", "position")

    def __init__(self, features, **kinds):
        _, convolution = _makers(**kinds)
        self.conv1 = convolution(features, 2 * features, 3)
        self.conv2 = convolution(2 * features, 4 * features, 3, pool="spikes")
        self.conv3 = convolution(4 * features, 8 * features, 3, pool="spikes")
        self.position = convolution(8 * features, 8 * features, 3)

    def __call__(self, x, ticks):
        """Spikes of all ticks of `x`."""
        for unit in (self.conv1, self.conv2, self.conv3):
            x = ticks(unit, x)
        return x + ticks(self.position, x)


class TokenBlock(Block):
    """Q-K token attention and an MLP, each added to what it gets.

    Where enough queries of a head fire, a neuron of the token and head fires and lets its keys
    pass.
    """

    names = ("query", "key", "attend", "project", "expand", "contract")

    def __init__(self, features, **kinds):
        unit, convolution = _makers(**kinds)
        self.heads = math.gcd(HEADS, features)
        self.query, self.key = (convolution(features, features) for _ in range(2))
        self.attend = unit(TokenSums(self.heads, kinds["dtype"]))
        self.project, self.expand, self.contract = _after_attention(features, convolution)

    def __call__(self, x, ticks):
        """Spikes of all ticks of `x`."""
        queries, keys = ticks(self.query, x), ticks(self.key, x)
        passing = ticks(self.attend, queries) * _split(keys, self.heads)
        return _add(self, x, passing.reshape(keys.shape), ticks)


class SelfBlock(Block):
    """Spiking self-attention (`TokenProducts`) and an MLP, each added to what it gets."""

    names = ("query", "key", "value", "attend", "project", "expand", "contract")

    def __init__(self, features, bias=False, scale=SCALE, **kinds):
        unit, convolution = _makers(**kinds)
        self.query, self.key, self.value = (
            convolution(features, features, bias=bias) for _ in range(3)
        )
        heads = math.gcd(HEADS, features)
        self.attend = unit(TokenProducts(heads, kinds["dtype"], scale))
        self.project, self.expand, self.contract = _after_attention(features, convolution)

    def __call__(self, x, ticks):
        """Spikes of all ticks of `x`."""
        spikes = tuple(ticks(unit, x) for unit in (self.query, self.key, self.value))
        return _add(self, x, ticks(self.attend, spikes), ticks)


def _after_attention(features: int, convolution: Callable) -> tuple[Unit, Unit, Unit]:
    sizes = (features, EXPANSION * features)
    return (
        convolution(features, features, bias=True),
        convolution(*sizes, bias=True),
        convolution(*reversed(sizes), bias=True),
    )


def _add(block: Any, x: Array, attended: Array, ticks: Ticks) -> Array:
    x = x + ticks(block.project, attended)
    return x + ticks(block.contract, ticks(block.expand, x))


class SpikingTransformer(nnx.Module):
    """3x3 stem, the blocks of `make_blocks`, the average of all tokens, linear.

    Tokens are the pixels of a map. Spikes are added, so that they are 0, 1, 2 ...

    Args: as for `SpikingResNet`.
    """

    smallest = 4

    def __init__(self, width, *, image_shape, num_classes, neuron, dtype, rngs):
        self.stem = ConvBN(image_shape[-1], width, dtype=dtype, rngs=rngs)
        self.neuron = own(neuron)
        blocks, features = self.make_blocks(width, neuron=neuron, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(blocks)
        self.head = linear(features, num_classes, rngs=rngs)

    def make_blocks(self, width: int, **kinds) -> tuple[list[Block], int]:
        """(what follows the stem of `width` channels, the channels of the last)."""
        raise NotImplementedError

    @property
    def largest_sum(self) -> int:
        """The most spikes that come together at one place: those of two neurons, and of two more
        for each block of attention that follows."""
        sums: list[int] = []
        for block in self.blocks:
            follows = isinstance(block, TokenBlock | SelfBlock)
            sums.append(sums[-1] + 2 if follows else 2)
        return max(sums)

    @property
    def factors(self) -> int:
        """How many spikes are multiplied at one place: a token's neuron's and its key's, or none.

        Products of `SelfBlock` are currents.
        """
        return 2 if any(isinstance(block, TokenBlock) for block in self.blocks) else 1

    def spike_layers(self) -> list[nnx.Module]:
        """The layers whose inputs are spikes, or sums of spikes, and nothing else."""
        return [unit.layer for block in self.blocks for _, unit in block.units()]

    def replace_neurons(self, replace: Callable[[str, Callable], Callable]) -> None:
        """Put `replace(place, neuron)` for each neuron, in the order in which they run."""
        self.neuron = replace("stem", self.neuron)
        for index, block in enumerate(self.blocks):
            for name, unit in block.units():
                unit.neuron = replace(f"blocks.{index}.{name}", unit.neuron)

    def encode(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T H W D"]:
        """The currents of the first spiking layer; no state, so once a sample for still images."""
        return self.stem(inputs)

    def integrate(
        self, currents: Float[Array, "B T H W D"], membranes=None
    ) -> tuple[Float[Array, "B T K"], tuple]:
        """Run the ticks of `currents` from `membranes` (None: at rest).

        Returns:
          (logits of each tick, membranes after the last one: of each neuron as they run)
        """
        ticks = Ticks(membranes)
        x = ticks(functools.partial(fire, self.neuron), currents)
        for block in self.blocks:
            x = block(x, ticks)
        features = jnp.mean(x, (2, 3), dtype=jnp.promote_types(x.dtype, jnp.float32))
        return self.head(features), tuple(ticks.after)


class QKFormer(SpikingTransformer):
    """Three stages, of 2, 4 and 8 `width` channels; the last two halve the map.

    Of width 48 for CIFAR-10 it is the authors' QKFormer-4-384: 6,706,234 parameters (6.74 M for 100
    classes). An image and timestep takes 1.516 GMAC, attention included, by `energy.layers`.

    Class attributes:
      token_blocks: of each stage but the last.
      self_blocks: of the last stage.
      scale: of its products of queries, keys and values.
    """

    token_blocks: tuple[int, ...] = (1, 1)
    self_blocks = 2
    scale = SCALE

    def make_blocks(self, width, **kinds):
        """(what follows the stem, the channels of the last)."""
        blocks: list[Block] = []
        for stage, count in enumerate((*self.token_blocks, self.self_blocks)):
            features = width * 2 ** (stage + 1)
            blocks.append(Embedding(features // 2, features, stage > 0, **kinds))
            is_last = stage == len(self.token_blocks)
            kind = functools.partial(SelfBlock, scale=self.scale) if is_last else TokenBlock
            blocks += [kind(features, **kinds) for _ in range(count)]
        return blocks, features


class QKFormerSmall(QKFormer):
    """Two stages of one block, for small images such as the 8x8 digits.

    Products of 16 tokens are small: scaled as those of 64 are, they would hardly ever fire.
    """

    token_blocks = (1,)
    self_blocks = 1
    scale = 1.0


class Spikformer(SpikingTransformer):
    """A quarter of the image's sides, and four blocks of self-attention.

    Of width 48 for CIFAR-10 it is the authors' Spikformer-4-384: 9,324,730 parameters (9.32 M),
    without the 6,144 of their normalisation layers that nothing calls. An image and timestep takes
    0.931 GMAC, attention included, by `energy.layers`.
    """

    depth = 4

    def make_blocks(self, width, **kinds):
        """(what follows the stem, the channels of the last)."""
        last = [SelfBlock(8 * width, bias=True, **kinds) for _ in range(self.depth)]
        return [Patches(width, **kinds), *last], 8 * width
