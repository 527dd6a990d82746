"""A loaded run as what is served."""

import jax
import jax.numpy as jnp
import numpy as np

from seenn_jax import exits
from seenn_jax.exits import Choice, Given
from seenn_jax.run.inference import Predictor
from seenn_jax.serving.core import Served


def served(predictor: Predictor, exit: str | None = None, choice: Choice | None = None) -> Served:
    """The network of a loaded run, with its exit.

    Args:
      predictor: of `seenn_jax.load`.
      exit, choice: as for its `predict`, with the same errors.
    """
    rule, chosen, temperatures = predictor.exit_of(exit, choice)
    network, facts, timesteps = predictor.network, predictor.facts, predictor.timesteps
    beforehand, value = getattr(rule, "beforehand", None), chosen.value

    def step(params, membranes, images):
        currents = network.encode(params[0], predictor.transform(images))
        return network.step(params[0], membranes, currents)

    def criterion(value_, params, images):
        return rule.criterion(None if value is None else value_, params[1], images)

    def decide(values, params, images):
        return beforehand(values, params[1], images)

    scale = None if temperatures is None else exits.logit_scale(timesteps, temperatures)
    return Served(
        params=(network.params, jax.tree.map(jnp.asarray, rule.params)),
        step=step,
        at_rest=network.at_rest,
        criterion=criterion,
        timesteps=timesteps,
        shape=tuple(facts.image_shape),
        dtype=np.dtype(facts.dtype),
        names=facts.names,
        value=0.0 if value is None else value,
        scale=scale,
        frames=bool(facts.frames),
        beforehand=None if beforehand is None else decide,
        check=lambda value: rule.check(Given(value), timesteps),
        renew=network.renew,
    )
