"""What training carries from step to step, and the step itself: pure functions of pytrees."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer, Key, Shaped, UInt8
from ml_collections import ConfigDict

from seenn_jax.data.augment import Normalization, augmented_batch, augmented_images
from seenn_jax.ticks import first_ticks
from seenn_jax.training.gradients import GRADIENTS, Loss, at_random
from seenn_jax.training.losses import make_loss, teaching
from seenn_jax.training.optimizer import update


class TrainState(NamedTuple):
    """Everything a resumed run needs; randomness is a function of the seed and `step`."""

    step: Int[Array, ""]
    params: Any
    stats: Any  # BatchNorm's running means and variances
    opt_state: Any
    average: Any  # (params, stats), exponential moving average; None without


class Given(NamedTuple):
    """What a step is given besides its state and batch, the same at every step.

    Operands of the compiled program, so that one serves all seeds and all teachers.
    """

    seed: Integer[ArrayLike, ""]
    teacher: Any = None  # parameters of a teacher's network

    @property
    def key(self) -> Key[Array, ""]:
        """Of the run's seed."""
        return jax.random.key(self.seed)


def initial_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, ema: float
) -> tuple[nnx.GraphDef, TrainState]:
    """(structure of the model, state at step 0)."""
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    # A copy: a state is donated to the step, and no buffer may be in it twice.
    average = jax.tree.map(jnp.copy, (params, stats)) if ema else None
    zero = jnp.zeros((), jnp.int32)
    return graph, TrainState(zero, params, stats, optimizer.init(params), average)


def evaluated(state: TrainState) -> tuple[Any, Any]:
    """(params, stats) that are evaluated: the average where there is one."""
    return (state.params, state.stats) if state.average is None else state.average


def train_step(
    state: TrainState,
    given: Given,
    images: UInt8[Array, "B *T H W C"],
    labels: Int[Array, "B"],
    *,
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    config: ConfigDict,
    normalization: Normalization,
    num_classes: int,
    timesteps: int,
    teach: Callable[[Any, Array], Array] | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One step on one batch.

    Args:
      teach: `(parameters, inputs as the network sees them) -> logits [B, K]` of the teacher, whose
        parameters are `given.teacher`; None without one.

    Returns:
      (next state, {loss, accuracy, gradient_norm; timesteps, if drawn}); accuracy is that of the
      mean logits on the batch as augmented, of its own labels where two images are mixed.
    """
    key = jax.random.fold_in(given.key, state.step)
    images = first_ticks(images, timesteps)
    inputs, targets = augmented(key, images, labels, config, normalization, num_classes)
    loss = _taught(make_loss(config), given, config, teach)

    def at(count):
        return GRADIENTS[config.gradient](graph, loss, count, config.remat)

    gradient, drawn = at(timesteps), {}
    if config.random_timesteps and timesteps > 1:
        index = _draw(given, state.step, timesteps)
        gradient, drawn = at_random(at, timesteps, index), {"timesteps": index + 1.0}
    (value, (accuracy, stats)), grads = accumulated(
        gradient, state.params, state.stats, (inputs, targets, labels), config.accumulate
    )
    updates, opt_state = update(optimizer, grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        # The usual warm-up: young averages forget faster.
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
        average = optax.incremental_update((params, stats), average, 1 - decay)
    metrics = {
        "loss": value,
        "accuracy": accuracy,
        "gradient_norm": optax.tree.norm(grads),
        **drawn,
    }
    return TrainState(state.step + 1, params, stats, opt_state, average), metrics


def _taught(
    loss: Callable, given: Given, config: ConfigDict, teach: Callable[[Any, Array], Array] | None
) -> Loss:
    """A loss of logits, to which that of a teacher's answers is added where there is one."""

    def of_inputs(inputs):
        if teach is None:
            return loss
        answer, weight = teach(given.teacher, inputs), config.teacher_weight

        def taught(logits, targets):
            lesson = teaching(logits, answer, config.teacher_temperature)
            return (1 - weight) * loss(logits, targets) + weight * lesson

        return taught

    return of_inputs


def _draw(given: Given, step: Int[Array, ""], timesteps: int) -> Int[Array, ""]:
    """A number from 0 to T - 1, of a key that nothing else of this step has a part of."""
    key = jax.random.fold_in(jax.random.split(given.key)[1], step)
    return jax.random.randint(key, (), 0, timesteps)


def accumulated(
    gradient: Callable[..., Any],
    params: Any,
    stats: Any,
    batch: tuple[Shaped[Array, "B ..."], ...],
    parts: int,
) -> Any:
    """What `gradient(params, stats, *batch)` returns, computed on one of `parts` at a time.

    Values, accuracies and gradients are means over the parts. BatchNorm normalises each part by
    its own statistics, and each moves the running ones, as if it were a batch of its own; what
    BatchNorm does not couple is as for the whole batch.

    Args:
      gradient: returns ((value, (accuracy, next statistics)), gradient), all but the statistics
        means over the samples.
      parts: the number of samples is a multiple of it; one after the other goes to the next part,
        so that each part is divided among devices as the batch is.
    """
    if parts == 1:
        return gradient(params, stats, *batch)
    batch = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0),
        batch,
    )

    def add(carry, part):
        stats, sums = carry
        (value, (accuracy, stats)), grads = gradient(params, stats, *part)
        return (stats, jax.tree.map(jnp.add, sums, (value, accuracy, grads))), None

    one = jax.tree.map(lambda x: x[0], batch)
    (value, (accuracy, _)), grads = jax.eval_shape(gradient, params, stats, *one)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (value, accuracy, grads))
    (stats, sums), _ = jax.lax.scan(add, (stats, zeros), batch)
    value, accuracy, grads = jax.tree.map(lambda x: x / parts, sums)
    return (value, (accuracy, stats)), grads


def augmented(
    key: Array,
    images: UInt8[Array, "B *T H W C"],
    labels: Int[Array, "B"],
    config: ConfigDict,
    normalization: Normalization,
    num_classes: int,
) -> tuple[Float[Array, "B *T H W C"], Float[Array, "B K"]]:
    """(inputs, target distributions) of a batch, as `config.augment` says."""
    images_key, batch_key = jax.random.split(key)
    dtype = config.model.dtype
    inputs = augmented_images(images_key, images, config.augment, normalization, dtype)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, num_classes), config.label_smoothing)
    return augmented_batch(batch_key, inputs, targets, config.augment)
