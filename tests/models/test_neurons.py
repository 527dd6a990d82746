import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax.errors import UserError
from seenn_jax.models import neurons
from seenn_jax.models.neurons import (
    IF,
    ILIF,
    LIF,
    PLIF,
    SURROGATES,
    dspike_derivative,
    own,
    triangle_derivative,
)

PROPERTY = settings(deadline=None, max_examples=25)


def column(*values):
    """Currents of one neuron of one sample: [1, T, 1]."""
    return jnp.array(values, jnp.float32)[None, :, None]


# --- Forward ------------------------------------------------------------------------------------

# Membranes before the reset, by hand, with tau 1/2 and threshold 1:
# 0.5 | 0.25 + 0.75 = 1: fires | 0 + 0.25 | 0.125 + 0.75 = 0.875 | 0.4375 + 2 = 2.4375: fires
# | 0 - 1 = -1 | -0.5 + 1.25 = 0.75
CURRENTS = (0.5, 0.75, 0.25, 0.75, 2, -1, 1.25)
SPIKES = (0, 1, 0, 0, 1, 0, 0)


def test_several_ticks_by_hand():
    spikes, v = LIF()(column(*CURRENTS))
    np.testing.assert_array_equal(spikes, column(*SPIKES))
    np.testing.assert_array_equal(v, [[0.75]])


def test_membrane_after_each_tick():
    after = [float(LIF()(column(*CURRENTS[:ticks]))[1][0, 0]) for ticks in range(1, 8)]
    assert after == [0.5, 0, 0.25, 0.875, 0, -1, 0.75]


def test_fires_at_the_threshold_and_not_just_below():
    below = np.nextafter(np.float32(1), np.float32(0))
    spikes, v = LIF()(jnp.array([[[1, below]]]))
    np.testing.assert_array_equal(spikes, [[[1, 0]]])
    np.testing.assert_array_equal(v, [[0, below]])


def test_decay_and_threshold_are_those_asked_for():
    # 0.75 * 1 + 1 = 1.75 | 0.75 * 1.75 + 0.6875 = 2: fires | 0 + 1
    spikes, v = LIF(tau=0.75, threshold=2.0)(column(1, 1, 0.6875, 1))
    np.testing.assert_array_equal(spikes, column(0, 0, 1, 0))
    np.testing.assert_array_equal(v, [[1]])


def test_starts_from_the_membrane_given():
    spikes, v = LIF()(column(0.5, 0.5), jnp.array([[1.0]]))  # 0.5 + 0.5 = 1: fires | 0.5
    np.testing.assert_array_equal(spikes, column(1, 0))
    np.testing.assert_array_equal(v, [[0.5]])


def test_dtype_of_the_currents_is_kept():
    spikes, v = LIF()(jnp.ones((2, 3, 4), jnp.bfloat16))
    assert spikes.dtype == v.dtype == jnp.bfloat16
    assert spikes.shape == (2, 3, 4)
    assert v.shape == (2, 4)


def test_integer_spikes_where_asked_for():
    spikes, v = LIF(spike_dtype="int8")(column(*CURRENTS))
    assert spikes.dtype == jnp.int8
    assert v.dtype == jnp.float32
    np.testing.assert_array_equal(spikes, column(*SPIKES))
    np.testing.assert_array_equal(v, [[0.75]])


# --- Integrate and fire ------------------------------------------------------------------------

# Threshold 2, so 1 at rest. Membranes before the reset:
# 1 + 0.5 | 1.5 + 0.5 = 2: fires | 0 + 3: fires | 1 - 4 = -3 | -3 + 4.5 = 1.5
IF_CURRENTS = (0.5, 0.5, 3, -4, 4.5)


def test_integrate_and_fire_by_hand():
    outputs, v = IF(2.0)(column(*IF_CURRENTS))
    np.testing.assert_array_equal(outputs, column(0, 2, 2, 0, 0))
    np.testing.assert_array_equal(v, [[1.5]])
    after = [float(IF(2.0)(column(*IF_CURRENTS[:n]))[1][0, 0]) for n in range(6)]
    assert after == [1, 1.5, 0, 1, -3, 1.5]


def test_integrate_and_fire_from_a_membrane_given():
    outputs, v = IF(2.0)(column(0.5), jnp.array([[5.0]]))  # one spike a tick, whatever is there
    np.testing.assert_array_equal(outputs, column(2))
    np.testing.assert_array_equal(v, [[3.5]])


def test_membranes_of_integrate_and_fire_are_float32():
    outputs, v = IF(jnp.float32(1.7))(jnp.ones((2, 3, 4), jnp.bfloat16))
    assert (outputs.dtype, v.dtype) == (jnp.bfloat16, jnp.float32)
    # 0.85 + 3 - 1.7 - 1.7, not what is left of it in bfloat16: outputs were 1.703125.
    np.testing.assert_allclose(v, jnp.full((2, 4), 0.45), rtol=1e-6)
    assert float(outputs.max()) == 1.703125


def test_no_ticks_leave_membranes_at_rest():
    for neuron, at_rest in ((IF(2.0), 1), (LIF(), 0)):
        outputs, v = neuron(jnp.ones((2, 0, 3)))
        assert outputs.shape == (2, 0, 3)
        np.testing.assert_array_equal(v, np.full((2, 3), at_rest))


def test_a_layer_has_its_own_parameters():
    neuron, shared = IF(2.0), LIF()
    mine = own(neuron)
    mine.threshold[...] = jnp.float32(3)
    assert float(neuron.threshold[...]) == 2
    assert own(shared) is shared


def test_unknown_surrogate():
    with pytest.raises(UserError, match=r"surrogate 'dspice'.*mean 'dspike'.* dspike, triangle"):
        LIF(surrogate="dspice")


# --- Soft reset, learnt decay, integers -----------------------------------------------------------


def test_soft_reset_by_hand():
    # 0.5 | 0.25 + 0.75 = 1: fires, 0 | 0 + 2.5: fires, 1.5 | 0.75 + 0.5: fires, 0.25 | 0.125 - 1
    spikes, v = LIF(reset="soft")(column(0.5, 0.75, 2.5, 0.5, -1))
    np.testing.assert_array_equal(spikes, column(0, 1, 1, 1, 0))
    np.testing.assert_array_equal(v, [[-0.875]])
    _, v = LIF(reset="soft", threshold=0.5)(column(2))
    np.testing.assert_array_equal(v, [[1.5]])


def test_an_unknown_reset():
    with pytest.raises(UserError, match=r"reset.*'sotf'.*did you mean 'soft'"):
        LIF(reset="sotf")


def test_a_learnt_decay_begins_as_that_of_lif_and_has_a_gradient():
    neuron, currents = PLIF(LIF(tau=0.75)), column(0.5, 0.25, 0.125)
    np.testing.assert_allclose(float(neuron.tau), 0.75, rtol=1e-6)
    assert neuron.learnt() == LIF(tau=float(neuron.tau))
    spikes, v = neuron(currents)
    expected = LIF(tau=0.75)(currents)
    chex.assert_trees_all_close((spikes, v), expected, rtol=1e-6)

    # v = 0.5 tau + 0.25, and dtau/draw = tau (1 - tau); away from the surrogate's region.
    graph, state = nnx.split(PLIF(LIF(tau=0.75, threshold=10.0)))
    last = lambda state: nnx.merge(graph, state)(column(0.5, 0.25))[1].sum()  # noqa: E731
    slope = jax.grad(last)(state)["raw"][...]
    np.testing.assert_allclose(slope, 0.5 * 0.75 * 0.25, rtol=1e-5)


def test_the_gradient_of_a_decay_is_summed_in_float32():
    neuron = PLIF(LIF(threshold=10.0))
    graph, state = nnx.split(neuron)

    def total(state):
        _, v = nnx.merge(graph, state)(jnp.ones((1, 2, 5000), jnp.bfloat16))
        return v.astype(jnp.float32).sum()

    gradient = jax.grad(total)(state)["raw"][...]
    assert gradient == pytest.approx(5000 * 0.25, rel=1e-3)  # in bfloat16 it stops at 256


@pytest.mark.parametrize("tau", [0.0, 1.0, 1.5])
def test_a_decay_that_can_not_be_learnt(tau):
    with pytest.raises(UserError, match=rf"`config.model.tau` is {tau}.*above 0 and below 1"):
        PLIF(LIF(tau=tau))


# tau 1/2, D = 4. 0.25: 0 | 0.125 + 2.625 = 2.75: 3, -0.25 | -0.125 + 9 = 8.875: 4, 4.875 |
# 2.4375 - 5 < 0: 0 | -1.28125 + 1.78125 = 0.5: to even, 0
INTEGER_CURRENTS = (0.25, 2.625, 9, -5, 1.78125)


def test_integer_spikes_by_hand():
    for neuron, dtype in ((ILIF(), jnp.float32), (ILIF().in_int8(), jnp.int8)):
        spikes, v = neuron(column(*INTEGER_CURRENTS))
        np.testing.assert_array_equal(spikes, column(0, 3, 4, 0, 0))
        assert (spikes.dtype, v.dtype) == (dtype, jnp.float32)
        np.testing.assert_array_equal(v, [[0.5]])
    # Of a threshold of 2: 5 / 2 is 2, to even, and 1 is left; 0.5 + 7.5 = 8: 3, at most.
    spikes, v = ILIF(threshold=2.0, largest_spike=3)(column(5, 7.5))
    np.testing.assert_array_equal(spikes, column(2, 3))
    np.testing.assert_array_equal(v, [[2]])


@pytest.mark.parametrize(("detach", "carried"), [(False, 0), (True, 0.5)])
def test_the_gradient_of_integer_spikes_is_straight_through(detach, carried):
    def run(currents):
        return ILIF(detach_reset=detach)(currents[None, :, None])[0][0, :, 0]

    # v - s has no gradient where s has one, and that of v where it has none: at 9 and below 0.
    for first, through in ((1.25, True), (9.0, False), (-1.0, False)):
        slope = jax.jacobian(run)(jnp.array([first, 1.0]))
        inner = carried if through else 0.5
        np.testing.assert_array_equal(slope, [[float(through), 0], [inner, 1]])


# --- Surrogate derivatives ----------------------------------------------------------------------


def test_dspike_derivative_by_hand():
    # 3 sech^2(3x) / (2 tanh 9) with 1/cosh^2(1) = 0.4199743416 and 1/cosh^2(9) = 6.0919e-8.
    with jax.enable_x64(True):
        at = lambda x: float(dspike_derivative(jnp.array(x, jnp.float64)))  # noqa: E731
        assert at(0.0) == pytest.approx(1.5000000457, rel=1e-9)
        assert at(1 / 3) == at(-1 / 3) == pytest.approx(0.6299615316, rel=1e-9)
        assert at(3.0) == at(-3.0) == pytest.approx(9.1379878e-8, rel=1e-6)
        assert at(np.nextafter(3, 4)) == at(-np.nextafter(3, 4)) == at(100.0) == 0


def test_dspike_derivative_with_other_constants():
    # b = 1, r = 1 at x = 1/2: sech^2(1/2) / (2 tanh 1) = 0.7864477330 / 1.5231883119
    got = dspike_derivative(jnp.array([-1.1, 0.5, 1.1]), temperature=1.0, region=1.0)
    np.testing.assert_allclose(got, [0, 0.5163168, 0], rtol=1e-6)


def test_triangle_derivative_by_hand():
    x = jnp.array([-2, -1, -0.25, 0, 0.5, 1, 3])
    np.testing.assert_array_equal(triangle_derivative(x), [0, 0, 0.75, 1, 0.5, 0, 0])
    # (2 - |x|) / 4
    got = triangle_derivative(x, gamma=2.0)
    np.testing.assert_array_equal(got, [0, 0.25, 0.4375, 0.5, 0.375, 0.25, 0])


@pytest.mark.parametrize(
    ("name", "derivative"), [("dspike", dspike_derivative), ("triangle", triangle_derivative)]
)
def test_surrogates_step_forwards_and_are_smooth_backwards(name, derivative):
    x = jnp.linspace(-4, 4, 33)
    np.testing.assert_array_equal(SURROGATES[name](x), np.where(x >= 0, 1, 0))
    slope = jax.vmap(jax.grad(SURROGATES[name]))(x)
    np.testing.assert_array_equal(slope, derivative(x))
    assert slope[16] > 0 == slope[0]


# --- Gradient through the reset -----------------------------------------------------------------

# Triangle surrogate, g(x) = max(0, 1 - |x|). With u1 = c1, v1 = u1 (1 - s1), u2 = v1 / 2 + c2:
#   ds1/dc1 = g(u1 - 1)             dv1/dc1 = (1 - s1) - u1 g(u1 - 1)
#   ds2/dc1 = g(u2 - 1) / 2 dv1/dc1  ds2/dc2 = g(u2 - 1)
#   dv2/dc2 = (1 - s2) - u2 g(u2 - 1)


def jacobian(c1, c2):
    """d(s1, s2) and d(v2) by (c1, c2)."""

    def run(c):
        spikes, v = LIF(surrogate="triangle")(c[None, :, None])
        return spikes[0, :, 0], v[0, 0]

    return jax.jacobian(run)(jnp.array([c1, c2]))


def test_gradient_of_two_ticks_where_the_first_is_silent():
    # u1 = 0.75, s1 = 0, g = 0.75, dv1/dc1 = 1 - 0.75 * 0.75 = 0.4375;
    # u2 = 0.375 + 1.125 = 1.5, s2 = 1, g = 0.5; dv2/dc2 = -1.5 * 0.5 = -0.75
    spikes, v = jacobian(0.75, 1.125)
    np.testing.assert_array_equal(spikes, [[0.75, 0], [0.5 * 0.5 * 0.4375, 0.5]])
    np.testing.assert_array_equal(v, [-0.75 * 0.5 * 0.4375, -0.75])


def test_gradient_of_two_ticks_where_the_first_fires():
    # u1 = 1.25, s1 = 1, g = 0.75, dv1/dc1 = -1.25 * 0.75 = -0.9375; u2 = 0.5, s2 = 0, g = 0.5;
    # dv2/dc2 = 1 - 0.5 * 0.5 = 0.75
    spikes, v = jacobian(1.25, 0.5)
    np.testing.assert_array_equal(spikes, [[0.75, 0], [0.5 * 0.5 * -0.9375, 0.5]])
    np.testing.assert_array_equal(v, [0.75 * 0.5 * -0.9375, 0.75])


@pytest.mark.parametrize(
    ("reset", "detach", "slope"),
    # dv1/dc1: 1 - s1, and without detaching -u1 g = -0.9375, or of a soft reset -g = -0.75
    [("hard", False, -0.9375), ("hard", True, 0), ("soft", False, 0.25), ("soft", True, 1)],
)
def test_gradient_through_each_reset(reset, detach, slope):
    def membrane(current):
        lif = LIF(surrogate="triangle", reset=reset, detach_reset=detach)
        return lif(current[None, None, None])[1][0, 0]

    assert jax.grad(membrane)(jnp.float32(1.25)) == slope  # u1 = 1.25, s1 = 1, g = 0.75


# --- All ticks at once, or one at a time --------------------------------------------------------

# With a decay that is a power of two the product is exact, so that the results must be the same
# bits however the compiler fuses it.
NEURONS = {
    **{f"tau {tau}": LIF(tau=tau) for tau in (0.25, 0.5, 1.0)},
    "soft": LIF(reset="soft"),
    "integers": ILIF(),
}
runs = {name: jax.jit(neuron) for name, neuron in NEURONS.items()}


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(sorted(runs)),
    splits=st.lists(st.integers(1, 5), max_size=4),
)
def test_ticks_at_once_equal_any_split_with_carried_membranes(seed, name, splits):
    lif = runs[name]
    rng = np.random.default_rng(seed)
    currents = jnp.asarray(rng.normal(0.5, 1, (2, 6, 3)), jnp.float32)
    v0 = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    together, last = lif(currents, v0)

    for bounds in (range(7), sorted({0, *splits, 6})):
        v, pieces = v0, []
        for start, stop in itertools.pairwise(bounds):
            spikes, v = lif(currents[:, start:stop], v)
            pieces.append(spikes)
        np.testing.assert_array_equal(jnp.concatenate(pieces, 1), together)
        np.testing.assert_array_equal(v, last)


def test_no_membrane_is_a_membrane_of_zero():
    currents = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 3)), jnp.float32)
    absent, zero = LIF()(currents), LIF()(currents, jnp.zeros((2, 3)))
    chex.assert_trees_all_equal(absent, zero)


@pytest.mark.parametrize(
    ("platform", "ticks", "carried", "spikes", "barriers"),
    [
        ("cuda", 1, True, None, 1),
        ("cuda", 1, True, "int8", 1),
        ("cuda", 1, False, None, 0),
        ("cuda", 2, True, None, 0),
        ("cpu", 1, True, None, 0),
    ],
)
def test_a_carried_membrane_is_computed_with_the_spikes(platform, ticks, carried, spikes, barriers):
    def run(currents, v0):
        return LIF(spike_dtype=spikes)(currents, v0 if carried else None)

    traced = jax.jit(run).trace(jnp.zeros((2, ticks, 3)), jnp.zeros((2, 3)))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert program.count("optimization_barrier") == barriers


def test_the_loop_of_long_runs_equals_the_unrolled_one(monkeypatch):
    timesteps = neurons.MAX_UNROLL + 3
    rng = np.random.default_rng(0)
    currents = jnp.asarray(rng.normal(0.5, 1, (2, timesteps, 3)), jnp.float32)

    def run():
        def total(currents):
            spikes, v = LIF()(currents)
            return jnp.sum(spikes * jnp.arange(3)) + jnp.sum(v), (spikes, v)

        # A function of its own each time, since jax.jit remembers what it has traced.
        call = jax.jit(jax.value_and_grad(total, has_aux=True))
        return call(currents), "while" in call.lower(currents).as_text()

    ((_, (spikes, v)), gradient), loops = run()
    monkeypatch.setattr(neurons, "MAX_UNROLL", timesteps)
    ((_, expected), expected_gradient), unrolled_loops = run()
    assert loops
    assert not unrolled_loops
    assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(spikes, expected[0])
    np.testing.assert_array_equal(v, expected[1])
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
