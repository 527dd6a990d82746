"""What decays, how momentum moves, and the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from seenn_jax.run import build, folder
from seenn_jax.training.optimizer import learning_rate, make_optimizer


def test_two_steps_of_nesterov_by_hand(make_config):
    config = make_config(
        optimizer={"learning_rate": 0.5, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True}
    )
    optimizer = make_optimizer(config, steps=2)
    params = {"layer": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    gradient = {"layer": {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}}
    state = optimizer.init(params)

    # Learning rate 1/2. Kernel: g = 1 + 0.1 * 2 = 1.2, m = 1.2, w = 2 - (1.2 + 1.2 / 2) / 2 = 1.1.
    # Bias: g = 1, m = 1, b = 2 - (1 + 1/2) / 2 = 1.25.
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["layer"]["kernel"], 1.1, rtol=1e-6)
    np.testing.assert_allclose(params["layer"]["bias"], 1.25, rtol=1e-6)

    # Cosine at half time: 1/4. Kernel: g = 1.11, m = 0.6 + 1.11 = 1.71, step 1.11 + 0.855 = 1.965.
    # Bias: g = 1, m = 1.5, step 1.75.
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["layer"]["kernel"], 1.1 - 1.965 / 4, rtol=1e-6)
    np.testing.assert_allclose(params["layer"]["bias"], 1.25 - 1.75 / 4, rtol=1e-6)


def test_momentum_without_nesterov_by_hand(make_config):
    changes = {"learning_rate": 1.0, "momentum": 0.5, "weight_decay": 0.0, "nesterov": False}
    optimizer = make_optimizer(make_config(optimizer=changes), steps=1000)
    params = {"kernel": jnp.array(0.0)}
    state = optimizer.init(params)
    moves = []
    for _ in range(2):
        updates, state = optimizer.update({"kernel": jnp.array(1.0)}, state, params)
        moves.append(updates["kernel"].item())
    np.testing.assert_allclose(moves, [-1.0, -1.5], rtol=1e-5)


def test_adamw_by_hand(make_config):
    changes = {"name": "adamw", "schedule": "warmup_cosine"}
    config = make_config(optimizer=changes | {"learning_rate": 0.5, "weight_decay": 0.1})
    rate = learning_rate(config, 40)
    # Two steps up from a hundredth; at half of the other 38 halfway between it and the peak.
    expected = [0.005, (0.005 + 0.5) / 2, 0.5, (0.005 + 0.5) / 2, 0.005]
    np.testing.assert_allclose([rate(step) for step in (0, 1, 2, 21, 40)], expected, rtol=1e-5)
    optimizer = make_optimizer(config, 40)
    params = {"kernel": jnp.array(2.0), "bias": jnp.array(2.0)}
    gradient = {"kernel": jnp.array(-3.0), "bias": jnp.array(-3.0)}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    # Adam's first step is the sign of the gradient; 0.1 of a kernel decays beside it.
    np.testing.assert_allclose(updates["kernel"], 0.005 * (1 - 0.2), rtol=1e-4)
    np.testing.assert_allclose(updates["bias"], 0.005, rtol=1e-4)


def test_only_kernels_decay(make_config):
    config = make_config(optimizer={"weight_decay": 0.25, "learning_rate": 1.0, "momentum": 0.0})
    config.optimizer.nesterov = False
    facts = folder.DataFacts((8, 8, 1), 10, [0.5], [0.5])
    abstract = nnx.eval_shape(lambda: build.network(config, facts))
    # All ones: where a bias is zero, as at the start, one could not tell whether it decays.
    params = jax.tree.map(lambda p: jnp.ones(p.shape, p.dtype), nnx.state(abstract, nnx.Param))
    optimizer = make_optimizer(config, steps=10)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    moved = {}
    for path, update in nnx.to_flat_state(updates):
        moved.setdefault(path[-1], []).append(np.asarray(update[...]))
    assert moved.keys() == {"kernel", "scale", "bias"}
    assert all((update == -0.25).all() for update in moved["kernel"])
    assert len(moved["kernel"]) == 4  # the stem, two convolutions, the read-out
    assert not any(update.any() for name in ("scale", "bias") for update in moved[name])


@pytest.mark.parametrize(
    ("schedule", "first", "middle", "last"),
    [
        # cos^2 of a quarter turn.
        ("cosine", 0.8, 0.4, 0.0),
        # Up from 1/25 of the peak over 30 %, then down to 1/10,000 of the start.
        ("onecycle", 0.8 / 25, None, 0.8 / 25e4),
    ],
)
def test_the_ends_of_the_schedules(make_config, schedule, first, middle, last):
    config = make_config(optimizer={"schedule": schedule, "learning_rate": 0.8})
    rate = learning_rate(config, 100)
    np.testing.assert_allclose(rate(0), first, rtol=1e-5)
    np.testing.assert_allclose(rate(100), last, rtol=1e-5, atol=1e-9)
    if middle is None:
        np.testing.assert_allclose(rate(30), 0.8, rtol=1e-5)
    else:
        np.testing.assert_allclose(rate(50), middle, rtol=1e-5)
    assert max(rate(t) for t in range(101)) <= 0.8 * (1 + 1e-6)
