"""The steps of a policy: alone, and together with its network."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8
from ml_collections import ConfigDict

from seenn_jax.exits.prices import split_outputs
from seenn_jax.exits.scores import accumulate
from seenn_jax.models.network import run_all
from seenn_jax.run import folder
from seenn_jax.ticks import seen
from seenn_jax.training.gradients import forward
from seenn_jax.training.losses import make_loss
from seenn_jax.training.optimizer import update
from seenn_jax.training.policy.answers import view
from seenn_jax.training.policy.objective import OBJECTIVES, entropy_bonus, rewards, sample_weights
from seenn_jax.training.step import Given, augmented


class PolicyState(NamedTuple):
    """Everything a resumed run needs; randomness is a function of the seed and `step`."""

    step: Int[Array, ""]
    params: Any  # of the spiking network ...
    stats: Any
    policy: tuple[Any, Any]  # ... and (params, stats) of the policy network
    opt_state: Any  # (the policy's, the network's)
    first_accuracy: Float[Array, ""]  # of the network before, on the training images, at t_1


class Graphs(NamedTuple):
    """The structures of the two networks."""

    network: nnx.GraphDef
    policy: nnx.GraphDef


def frozen_step(
    state: PolicyState,
    given: Given,
    images: UInt8[Array, "B *T H W channels"],
    labels: Int[Array, "B"],
    index: Int[Array, "B"],
    correct: Bool[Array, "B copies C"],
    classes: Float[Array, "B copies K"],
    *,
    graphs: Graphs,
    optimizers: tuple,
    config: ConfigDict,
    facts: folder.DataFacts,
    steps_per_epoch: int,
) -> tuple[PolicyState, dict[str, Float[Array, ""]]]:
    """One step of the policy alone, on the copy of the images that is this epoch's.

    Args:
      correct, classes: the network's `Answers` to these images.

    Returns:
      (next state, {loss, accuracy, timesteps, gradient_norm}), accuracy and timesteps as expected
      under the policy.
    """
    copy = state.step // steps_per_epoch % correct.shape[1]
    inputs = view(images, index, copy, given.key, config, facts)
    correct, classes = correct[:, copy], classes[:, copy].astype(jnp.float32)

    def loss(policy):
        value, (chances, policy_stats) = _policy_loss(
            policy, inputs, correct, classes, state, given, graphs, config
        )
        return value, (_expected(chances, correct, config), policy_stats)

    gradient = jax.value_and_grad(loss, has_aux=True)
    (value, (metrics, policy_stats)), grads = gradient(state.policy[0])
    updates, opt_state = optimizers[0].update(grads, state.opt_state[0], state.policy[0])
    policy = optax.apply_updates(state.policy[0], updates)
    metrics |= {"loss": value, "gradient_norm": optax.tree.norm(grads)}
    return state._replace(
        step=state.step + 1,
        policy=(policy, policy_stats),
        opt_state=(opt_state, state.opt_state[1]),
    ), metrics


def joint_step(
    state: PolicyState,
    given: Given,
    images: UInt8[Array, "B *T H W channels"],
    labels: Int[Array, "B"],
    index: Int[Array, "B"],
    correct: Bool[Array, "B copies C"],
    classes: Float[Array, "B copies K"],
    *,
    graphs: Graphs,
    optimizers: tuple,
    config: ConfigDict,
    facts: folder.DataFacts,
) -> tuple[PolicyState, dict[str, Float[Array, ""]]]:
    """One step of both networks on images augmented anew; returns as `frozen_step`.

    Args:
      correct, classes: not used, the network is asked anew.
    """
    key = jax.random.fold_in(given.key, state.step)
    inputs, targets = augmented(key, images, labels, config, facts.normalization, facts.num_classes)
    loss_function = make_loss(config)
    at = np.asarray(config.policy.candidates)

    def loss(policy, params):
        logits, stats = forward(
            graphs.network, params, state.stats, inputs, config.timesteps, config.remat
        )
        cumulative = accumulate(logits)[:, at - 1]
        mean_logits = cumulative / at[:, None]
        correct = cumulative.argmax(-1) == labels[:, None]
        classes = jax.nn.softmax(jax.lax.stop_gradient(cumulative[:, 0]))
        value, (chances, policy_stats) = _policy_loss(
            policy, inputs, correct, classes, state, given, graphs, config
        )
        at_exits = optax.softmax_cross_entropy(mean_logits, targets[:, None])
        value += loss_function(logits, targets)
        value += jnp.mean(jnp.sum(jax.lax.stop_gradient(chances) * at_exits, axis=-1))
        metrics = _expected(chances, correct, config)
        return value, (metrics, policy_stats, stats)

    gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)
    both = (state.policy[0], state.params)
    (value, (metrics, policy_stats, stats)), grads = gradient(*both)
    updated, opt_state = [], []
    for optimizer, g, before, of in zip(optimizers, grads, state.opt_state, both, strict=True):
        updates, after = update(optimizer, g, before, of)
        updated.append(optax.apply_updates(of, updates))
        opt_state.append(after)
    policy, params = updated
    metrics |= {"loss": value, "gradient_norm": optax.tree.norm(grads)}
    return state._replace(
        step=state.step + 1,
        params=params,
        stats=stats,
        policy=(policy, policy_stats),
        opt_state=tuple(opt_state),
    ), metrics


def _policy_loss(
    policy: Any,
    inputs: Float[Array, "B *T H W channels"],
    correct: Bool[Array, "B C"],
    classes: Float[Array, "B K"],
    state: PolicyState,
    given: Given,
    graphs: Graphs,
    config: ConfigDict,
) -> tuple[Float[Array, ""], tuple[Float[Array, "B C"], Any]]:
    """(the objective, (the policy's probabilities, its next statistics))."""
    model = nnx.merge(graphs.policy, policy, state.policy[1], copy=True)
    logits, own = split_outputs(run_all(model, seen(inputs), 1)[:, 0], correct.shape[1])
    # Of the step's keys a part that nothing else uses.
    key = jax.random.split(jax.random.fold_in(given.key, state.step), 3)[2]
    weights = sample_weights(correct[:, 0], state.first_accuracy)
    earned = rewards(correct, config.policy.candidates, config.policy.beta)
    value = OBJECTIVES[config.policy.objective](key, logits, earned, weights)
    value -= config.policy.entropy * entropy_bonus(logits, weights)
    if config.policy.auxiliary:
        value += config.policy.auxiliary * jnp.mean(optax.softmax_cross_entropy(own, classes))
    return value, (jax.nn.softmax(logits), nnx.state(model, nnx.BatchStat))


def _expected(
    chances: Float[Array, "B C"], correct: Bool[Array, "B C"], config: ConfigDict
) -> dict[str, Float[Array, ""]]:
    candidates = jnp.asarray(config.policy.candidates)
    return {
        "accuracy": jnp.mean(jnp.sum(chances * correct, axis=-1)),
        "timesteps": jnp.mean(jnp.sum(chances * candidates, axis=-1)),
    }
