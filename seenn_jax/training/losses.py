"""Losses over the logits of every timestep; targets are distributions, so that mixup works."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from seenn_jax.tables import Table, called_with, check_call, check_given


def mean_cross_entropy(
    logits: Float[Array, "B T K"], targets: Float[Array, "B K"]
) -> Float[Array, ""]:
    """CE(mean_t o_t, y), mean over the batch: the usual loss of a rate-coded read-out."""
    return optax.softmax_cross_entropy(logits.mean(1), targets).mean()


def tet(
    logits: Float[Array, "B T K"],
    targets: Float[Array, "B K"],
    weight: float = 1e-3,
    distillation: float = 0.0,
) -> Float[Array, ""]:
    """(1 - weight) mean_t CE(o_t, y) + weight MSE(o_t, 1) + distillation mean_t KL_t.

    Temporal efficient training (Deng et al., ICLR 2022, eq. 11): every tick is taught on its own,
    which is what makes an early exit accurate. With `distillation` each tick learns the answer of
    all ticks too: KL_t = KL(softmax(mean_s o_s) || softmax(o_t)), where the mean is a constant
    (distillation, Hinton et al. 2015, from the network itself); 0 where T = 1.
    """
    cross_entropy = optax.softmax_cross_entropy(logits, targets[:, None]).mean()
    loss = (1 - weight) * cross_entropy + weight * jnp.mean(jnp.square(logits - 1))
    if distillation:
        answer = jax.nn.log_softmax(jax.lax.stop_gradient(logits.mean(1, keepdims=True)))
        each = jax.nn.log_softmax(logits)
        divergence = optax.losses.kl_divergence_with_log_targets(each, answer)
        loss += distillation * divergence.mean()
    return loss


def teaching(
    logits: Float[Array, "B T K"], teacher: Float[Array, "B K"], temperature: float
) -> Float[Array, ""]:
    """temperature^2 mean KL(softmax(teacher / temperature) || softmax(o_t / temperature)).

    The mean is over samples and ticks: each tick learns what another network answers (distillation,
    Hinton et al. 2015; of every tick, Yu et al., ICML 2025). The square keeps its gradient, which
    falls with it, as large as that of a cross-entropy. No gradient reaches `teacher`.
    """
    answer = jax.nn.log_softmax(jax.lax.stop_gradient(teacher) / temperature)[:, None]
    each = jax.nn.log_softmax(logits / temperature)
    divergence = optax.losses.kl_divergence_with_log_targets(each, answer)
    return temperature**2 * divergence.mean()


# `config -> loss`, with `loss(logits [B, T, K], targets [B, K])`.
LOSSES = Table(
    "LOSSES",
    "loss",
    {
        "mean_ce": lambda config: mean_cross_entropy,
        "tet": lambda config: functools.partial(
            tet, weight=config.tet_weight, distillation=config.tet_distillation
        ),
    },
    called_with("config"),
)


def make_loss(config: ConfigDict) -> Callable[[Array, Array], Float[Array, ""]]:
    """The loss of a config.

    Raises:
      UserError: it is somebody's own and no function of these arguments; called, it gives something
        else than a number, or the network has other logits than there are classes.
    """
    what = LOSSES.words(config.loss)
    found = LOSSES[config.loss](config)
    check_call(f"what {what} gives", found, "logits", "targets")

    def loss(logits, targets):
        classes = targets.shape[-1]
        wanted = f"logits [B, T, K] with K = {classes}, one of each class"
        check_given("the network", logits, lambda x: x.shape[-1] == classes, wanted)
        value = found(logits, targets)
        good = lambda x: x.shape == () and jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
        check_given(what, value, good, "one number, float32")
        return value

    return loss
