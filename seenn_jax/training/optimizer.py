"""The optimiser and its learning rate."""

from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from seenn_jax.tables import Table, called_with, check_call, check_given


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate by step over a run of `steps` steps."""
    name = config.optimizer.schedule
    found = SCHEDULES[name](config.optimizer.learning_rate, steps)
    check_call(f"what {SCHEDULES.words(name)} gives", found, "step")
    at_0 = jax.eval_shape(found, jax.ShapeDtypeStruct((), "int32"))
    check_given(SCHEDULES.words(name), at_0, lambda x: x.shape == (), "a number for each step")
    return found


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """The optimiser of a config, with its learning rate."""
    name = config.optimizer.name
    found = OPTIMIZERS[name](config, learning_rate(config, steps))
    check_given(
        OPTIMIZERS.words(name),
        found,
        lambda made: callable(made.init) and callable(made.update),
        "an optax.GradientTransformation",
    )
    return found


def update(
    optimizer: optax.GradientTransformation, gradient: Any, state: Any, params: Any
) -> tuple[Any, Any]:
    """(changes of the parameters, next state) of an optimiser, which may be somebody's own."""
    found = optimizer.update(gradient, state, params)
    same = jax.tree.structure(params)
    check_given(
        "the `update` of the optimizer",
        found,
        lambda pair: len(pair) == 2 and jax.tree.structure(pair[0]) == same,
        "(updates, state), the updates as the parameters",
    )
    return found


def sgd(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """SGD with momentum; weight decay, in the gradient as in PyTorch, on kernels only."""
    return optax.chain(
        optax.add_decayed_weights(config.optimizer.weight_decay, _kernels),
        optax.sgd(schedule, config.optimizer.momentum, config.optimizer.nesterov),
    )


def adamw(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, ICLR 2019); weight decay on kernels only."""
    return optax.adamw(schedule, weight_decay=config.optimizer.weight_decay, mask=_kernels)


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(getattr(key, "key", None) == "kernel" for key in path), params
    )


def warmup_cosine(peak: float, steps: int) -> optax.Schedule:
    """From a hundredth of the peak to it in a twentieth of the steps, and back along a cosine."""
    low = peak / 100
    return optax.warmup_cosine_decay_schedule(low, peak, steps // 20, steps, low)


# `(config, schedule) -> transformation`.
OPTIMIZERS = Table(
    "OPTIMIZERS",
    "optimizer",
    {"adamw": adamw, "sgd": sgd},
    called_with("config", "schedule"),
)
# `(largest learning rate, steps) -> schedule`.
SCHEDULES = Table(
    "SCHEDULES",
    "schedule",
    {
        "cosine": optax.cosine_decay_schedule,
        "onecycle": lambda peak, steps: optax.cosine_onecycle_schedule(steps, peak),
        "warmup_cosine": warmup_cosine,
    },
    called_with("peak", "steps"),
)
