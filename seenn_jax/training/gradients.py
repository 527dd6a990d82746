"""The loss of a batch and its gradient: through all ticks at once, or tick by tick."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from seenn_jax.models.layers import CONVOLUTION
from seenn_jax.models.network import rest, run_all
from seenn_jax.ticks import currents, first_ticks, frames

# `inputs -> (logits [B, t, K], targets [B, K]) -> number`, of these ticks; a teacher is asked once.
Loss = Callable[[Array], Callable[[Array, Array], Float[Array, ""]]]
# `(params, stats, inputs, targets, labels) -> ((loss, (accuracy, next stats)), gradient)`.
Gradient = Callable[..., tuple[tuple[Array, tuple[Array, Any]], Any]]


def _recomputed(run: Callable, remat: bool) -> Callable:
    """With `remat` only what convolutions give is kept for the gradient of `run`.

    BatchNorm and neurons are computed again from it: about half the memory for more time.
    """
    if not remat:
        return run
    kept = jax.checkpoint_policies.save_only_these_names(CONVOLUTION)
    return jax.checkpoint(run, policy=kept)


def forward(
    graph: nnx.GraphDef,
    params: Any,
    stats: Any,
    inputs: Float[Array, "B ..."],
    timesteps: int,
    remat: bool,
) -> tuple[Float[Array, "B T K"], Any]:
    """(logits of every tick, BatchNorm's next statistics) of a network in training.

    Args:
      remat: see `_recomputed`.
    """

    def run(params, stats, inputs):
        model = nnx.merge(graph, params, stats, copy=True)
        return run_all(model, inputs, timesteps), nnx.state(model, nnx.BatchStat)

    return _recomputed(run, remat)(params, stats, inputs)


def _accuracy(mean: Float[Array, "B K"], labels: Int[Array, "B"]) -> Float[Array, ""]:
    """Of the mean logits of all ticks."""
    return jnp.mean(mean.argmax(-1) == labels)


def through_time(graph: nnx.GraphDef, loss: Loss, timesteps: int, remat: bool) -> Gradient:
    """Backpropagation through time: what every tick keeps for it is in memory at once."""

    def value(params, stats, inputs, targets, labels):
        logits, stats = forward(graph, params, stats, inputs, timesteps, remat)
        accuracy = _accuracy(logits.mean(1), labels)
        return loss(inputs)(logits, targets), (accuracy, stats)

    return jax.value_and_grad(value, has_aux=True)


def tick_by_tick(graph: nnx.GraphDef, loss: Loss, timesteps: int, remat: bool) -> Gradient:
    """Backpropagation within each tick alone, of memory that does not grow with `timesteps`.

    Membranes go from tick to tick as numbers without a gradient, and a tick's gradient is computed
    before the next tick runs (SLTT; Meng et al., ICCV 2023). At one timestep this is
    backpropagation through time.

    BatchNorm normalises each tick by that tick's statistics, where ticks that run at once share
    theirs; the running ones move by the mean over ticks, once a step. Evaluation has these for all
    ticks, by which the first ones can lose accuracy. The currents of a still image are computed
    anew at each tick.

    Args:
      loss: its mean over single ticks must be the loss of all.
    """

    def gradient(params, stats, inputs, targets, labels):
        is_still = not frames(inputs)
        ticks = None if is_still else jnp.moveaxis(inputs, 1, 0)[:, :, None]
        of_logits = loss(inputs)

        def run(params, membranes, x):
            model = nnx.merge(graph, params, stats, copy=True)
            logits, membranes = model.integrate(currents(model, x, 1), membranes)
            return logits, membranes, nnx.state(model, nnx.BatchStat)

        def value(params, membranes, x):
            logits, membranes, after = _recomputed(run, remat)(params, membranes, x)
            return of_logits(logits, targets), (logits, membranes, after)

        def of_tick(membranes, x):
            (found, (logits, membranes, after)), grads = jax.value_and_grad(value, has_aux=True)(
                params, membranes, inputs if is_still else x
            )
            moved = jax.tree.map(jnp.subtract, after, stats)
            return membranes, (found, grads, moved, logits[:, 0])

        def tick(carry, x):
            membranes, found = of_tick(carry[0], x)
            return (membranes, jax.tree.map(jnp.add, carry[1], found)), None

        first = inputs if is_still else inputs[:, :1]
        membranes = _at_rest(graph, params, stats, first)
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_tick, membranes, first)[1]
        )
        (_, sums), _ = jax.lax.scan(tick, (membranes, zeros), ticks, length=timesteps)
        found, grads, moved, logits = jax.tree.map(lambda x: x / timesteps, sums)
        after = jax.tree.map(jnp.add, stats, moved)
        return (found, (_accuracy(logits, labels), after)), grads

    return gradient


def _at_rest(graph: nnx.GraphDef, params: Any, stats: Any, inputs: Float[Array, "B ..."]) -> Any:
    """Membranes before the first tick, for a batch like `inputs`, of one tick."""
    model = nnx.view(nnx.merge(graph, params, stats, copy=True), use_running_average=True)
    return rest(model, jax.eval_shape(lambda x: currents(model, x, 1), inputs))


# `(graph, loss, timesteps, remat) -> Gradient`.
GRADIENTS: dict[str, Callable[..., Gradient]] = {"bptt": through_time, "last": tick_by_tick}


def at_random(at: Callable[[int], Gradient], timesteps: int, index: Int[Array, ""]) -> Gradient:
    """A gradient at `index` + 1 timesteps, each of which has a branch of the program.

    BatchNorm's running statistics move where all timesteps run, too seldom to follow the
    parameters: `estimation` finds them anew before an evaluation.

    Args:
      at: `timesteps -> gradient`.
      timesteps: T.
      index: from 0, below T.
    """

    def branch(count):
        def call(params, stats, inputs, *labels):
            found = at(count)(params, stats, first_ticks(inputs, count), *labels)
            (value, (accuracy, after)), grads = found
            return (value, (accuracy, after if count == timesteps else stats)), grads

        return call

    branches = [branch(count) for count in range(1, timesteps + 1)]
    return lambda *arguments: jax.lax.switch(index, branches, *arguments)
