"""Each neuron in each kind of network: one definition for all ticks at once and for single ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax import exits
from seenn_jax.engine import METHODS, run_network
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.network import inference_network, run_all
from seenn_jax.models.neurons import ILIF, LIF, PLIF
from seenn_jax.models.precision import PRECISIONS
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.models.vgg import SpikingVGG

T = 3


class Residual(SpikingResNet):
    stages = (1, 1)


class Strided(Residual):
    pool = False


class Chain(SpikingVGG):
    plan = (1, 1, "P", 2)
    flat = True


NETWORKS = {"ResNet": Residual, "VGG": Chain, "strided": Strided}
NEURONS = {
    "LIF": LIF(tau=0.6),
    "soft": LIF(tau=0.6, reset="soft"),
    "detached": LIF(tau=0.6, detach_reset=True),
    "PLIF": PLIF(LIF(tau=0.6, reset="soft", detach_reset=True)),
    "ILIF": ILIF(tau=0.6),
}


def each(*quick):
    """Each neuron in each kind of network; slow but for some."""
    return pytest.mark.parametrize(
        ("neuron", "kind"),
        [
            pytest.param(neuron, kind, marks=[] if (neuron, kind) in quick else [pytest.mark.slow])
            for neuron in NEURONS
            for kind in ("ResNet", "VGG")
        ],
    )


class Plain(nnx.Module):
    """The same neurons as a loop over ticks, from their equations and from nothing else."""

    def __init__(self, neuron):
        self.learns = isinstance(neuron, PLIF)
        if self.learns:
            self.raw = nnx.Param(neuron.raw[...])
        self.of = neuron.lif if self.learns else neuron

    def __call__(self, currents, v0=None):
        constant, of = jax.lax.stop_gradient, self.of
        tau = 1 / (1 + jnp.exp(-self.raw[...])) if self.learns else of.tau
        v = jnp.zeros_like(currents[:, 0]) if v0 is None else v0
        spikes = []
        for t in range(currents.shape[1]):
            v = tau * v + currents[:, t]
            if isinstance(of, ILIF):
                s = constant(jnp.clip(jnp.round(v), 0, 4))
                slope = constant((v >= 0) & (v <= 4))
            else:
                s = constant(jnp.where(v >= 1, 1.0, 0.0))
                sech = 1 / jnp.cosh(3 * (constant(v) - 1))
                slope = jnp.where(abs(constant(v) - 1) <= 3, 3 * sech**2 / (2 * np.tanh(9)), 0)
            s = s + slope * (v - constant(v))
            spikes.append(s)
            lost = constant(s) if of.detach_reset else s
            soft = isinstance(of, ILIF) or of.reset == "soft"
            v = v - lost if soft else v * (1 - lost)
        return jnp.stack(spikes, 1), v


@functools.cache
def network(neuron, kind, dtype="float64", make=lambda neuron: neuron):
    """A network for inference whose layers fire, and its images."""
    shape, rng = (4, 4, 3), np.random.default_rng(0)
    model = NETWORKS[kind](
        5,
        image_shape=shape,
        num_classes=3,
        neuron=make(NEURONS[neuron]),
        dtype=jnp.dtype(dtype),
        rngs=nnx.Rngs(0),
    )
    for _, module in nnx.iter_graph(model):
        if isinstance(module, nnx.BatchNorm):
            module.mean[...] = jnp.float32(rng.normal(0, 0.3, module.mean.shape))
            module.scale[...] = jnp.float32(rng.uniform(1, 2, module.scale.shape))
            module.bias[...] = jnp.float32(rng.uniform(0, 0.5, module.bias.shape))
    nnx.update(model, jax.tree.map(lambda x: x.astype(dtype), nnx.state(model)))
    return nnx.view(model, use_running_average=True), jnp.asarray(rng.normal(size=(9, *shape)))


@each(("PLIF", "ResNet"), ("ILIF", "VGG"))
def test_ticks_at_once_are_single_ticks_and_the_gradient_is_that_of_a_loop(neuron, kind):
    with jax.enable_x64(True):
        model, images = network(neuron, kind)
        plain, _ = network(neuron, kind, make=Plain)
        graphs, params, others = zip(
            *(nnx.split(m, nnx.Param, ...) for m in (model, plain)), strict=True
        )
        weights = jnp.asarray(np.random.default_rng(1).normal(size=(len(images), T, 3)))

        def at_once(params):
            logits = run_all(nnx.merge(graphs[0], params, others[0]), images, T)
            return jnp.sum(logits * weights), logits

        def one_by_one(params):
            model = nnx.merge(graphs[1], params, others[1])
            currents, membranes, ticks = model.encode(images[:, None]), None, []
            for _ in range(T):
                logits, membranes = model.integrate(currents, membranes)
                ticks.append(logits)
            logits = jnp.concatenate(ticks, 1)
            return jnp.sum(logits * weights), logits

        both = zip((at_once, one_by_one), params, strict=True)
        found = [jax.jit(jax.value_and_grad(f, has_aux=True))(p) for f, p in both]
        ((_, ours), gradient), ((_, theirs), expected) = found
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert np.abs(np.diff(ours, axis=1)).max() > 1e-3
    slopes = dict(jax.tree.leaves_with_path(nnx.to_pure_dict(gradient)))
    wanted = dict(jax.tree.leaves_with_path(nnx.to_pure_dict(expected)))
    assert slopes.keys() == wanted.keys()
    for path, slope in slopes.items():
        np.testing.assert_allclose(slope, wanted[path], rtol=1e-7, atol=1e-9, err_msg=str(path))
        assert np.any(slope), path


@each(("ILIF", "VGG"))
def test_exits_are_the_same_however_they_are_run(neuron, kind):
    model, images = network(neuron, kind, "float32")
    images = images.astype(jnp.float32)
    run = inference_network(model, images.shape[1:], T, prepare=PRECISIONS["int8"].prepare)
    logits = jax.jit(run.logits)(run.params, images)
    scores = exits.confidence(exits.accumulate(logits))
    criterion = exits.above(exits.confidence, float(jnp.median(scores[:, 1])))

    @jax.jit
    def by_each(images):
        return [run_network(m, run, run.params, images, criterion, T, 4) for m in METHODS]

    first, *others = by_each(images)
    assert 1 < first.timesteps.mean() < T
    for other in others:
        np.testing.assert_array_equal(first.timesteps, other.timesteps)
        np.testing.assert_allclose(first.logits, other.logits, rtol=1e-5, atol=1e-5)


def test_integers_are_binary_spikes_of_virtual_ticks(monkeypatch):
    """Each layer, run on D binary virtual ticks whose products are summed, is that on integers."""
    model, images = network("ILIF", "strided", "float32")
    run = lambda: run_all(model, images.astype(jnp.float32), T)  # noqa: E731
    logits, products, seen = run(), ConvBN._products, []

    def of_virtual_ticks(self, x):
        if x.shape[-1] == 3:  # the stem sees pixels
            return products(self, x)
        binary = [jnp.where(x > d, 1.0, 0.0) for d in range(4)]
        seen.append([float(b.sum()) for b in binary])
        return sum(products(self, b) for b in binary)

    monkeypatch.setattr(ConvBN, "_products", of_virtual_ticks)
    np.testing.assert_allclose(run(), logits, rtol=1e-5, atol=1e-5)
    assert len(seen) == 5
    assert all(sums[0] > sums[1] > sums[2] for sums in seen)  # there are more than 0 and 1
