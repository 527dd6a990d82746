"""Temperatures that divide the cumulative logits, fitted on a validation split."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from seenn_jax.exits.checks import check_labels
from seenn_jax.exits.thresholds import check_split

# Log-likelihood has no maximum where all samples are right (temperature 0) or no better than
# chance (infinity); the fit then ends at one of these.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 1000.0


@jax.jit
def _fit_temperatures(
    cumulative: Float[Array, "N T K"], labels: Int[Array, "N"]
) -> Float[Array, "T"]:
    def fit(logits: Float[Array, "N K"]) -> Float[Array, ""]:
        excess = logits - jnp.take_along_axis(logits, labels[:, None], axis=-1)

        def halve(_, bounds):
            middle = jnp.mean(bounds)
            # d NLL / d (1 / temperature), which rises with 1 / temperature, and falls with it.
            probabilities = jax.nn.softmax(excess * jnp.exp(-middle))
            too_cold = jnp.mean(jnp.sum(probabilities * excess, axis=-1)) > 0
            return jnp.where(too_cold, bounds.at[0].set(middle), bounds.at[1].set(middle))

        bounds = jnp.log(jnp.array([MIN_TEMPERATURE, MAX_TEMPERATURE], logits.dtype))
        return jnp.exp(jnp.mean(jax.lax.fori_loop(0, 30, halve, bounds)))

    # One timestep at a time: the memory of one [N, K].
    return jax.lax.map(fit, jnp.moveaxis(cumulative, 1, 0))


def fit_temperatures(
    cumulative: Float[ArrayLike, "N T K"], labels: Int[ArrayLike, "N"] | None
) -> Float[Array, "T"]:
    """Return the temperature at each timestep that minimises the negative log-likelihood.

    Guo et al. 2017, arXiv 1706.04599. The likelihood is log-concave in 1 / temperature, so the
    sign of its slope is bisected, on log temperature between MIN_TEMPERATURE and MAX_TEMPERATURE,
    and the best is found whatever the start.

    Args:
        cumulative: from `exits.accumulate`, without temperature.
        labels: true classes.

    Raises:
        UserError: missing labels, no samples, logits that are not finite.
    """
    check_labels(labels, "fitting temperatures")
    check_split(cumulative)
    return _fit_temperatures(jnp.asarray(cumulative), jnp.asarray(labels))
