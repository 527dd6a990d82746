"""What a policy gives on the validation split."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from seenn_jax import devices
from seenn_jax.data import Split, normalize
from seenn_jax.engine import in_batches, over_devices
from seenn_jax.engine.common import BATCH
from seenn_jax.exits import accumulate, at_exit
from seenn_jax.exits.prices import exit_times, mean_accuracy, split_outputs
from seenn_jax.models.network import inference_network
from seenn_jax.run import folder
from seenn_jax.ticks import seen
from seenn_jax.training.loop import Validation
from seenn_jax.training.policy.step import Graphs, PolicyState


def make_validate(
    graphs: Graphs,
    converted: nnx.Module | None,
    config: ConfigDict,
    facts: folder.DataFacts,
    split: Split,
) -> Callable[[PolicyState], Validation]:
    """What the policy's argmax gives on the validation split; the score is `mean_accuracy`.

    Args:
      converted: the spiking network of an ANN; else that of the state is used.
    """
    images = devices.replicate(split.images)
    predict, frozen_params = _make_predict(graphs, converted, config, facts, len(split.labels))

    def validate(state):
        found = predict(state._replace(opt_state=None), frozen_params, images)
        logits, chosen = jax.device_get(found)
        if not (np.isfinite(logits).all() and np.isfinite(chosen).all()):
            return Validation(math.nan, {}, "")
        correct = np.asarray(accumulate(logits).argmax(-1)) == split.labels[:, None]
        return _found(chosen, correct, config)

    return validate


def _make_predict(
    graphs: Graphs,
    converted: nnx.Module | None,
    config: ConfigDict,
    facts: folder.DataFacts,
    samples: int,
) -> tuple[Callable, Any]:
    """(`(state, parameters, images) -> (logits of the network, of the candidates)`, parameters)."""
    frozen = converted and inference_network(converted, facts.image_shape, config.timesteps)

    @functools.partial(jax.jit, compiler_options=devices.compiler_options(config.deterministic))
    def predict(state, frozen_params, images):
        if frozen:
            network = frozen._replace(params=frozen_params)
        else:
            model = nnx.merge(graphs.network, state.params, state.stats)
            network = inference_network(model, facts.image_shape, config.timesteps)
        policy = inference_network(nnx.merge(graphs.policy, *state.policy), facts.image_shape, 1)

        def logits_of(network, shown=lambda images: images):
            def logits(params, images):
                inputs = normalize(shown(images), *facts.normalization, dtype=config.model.dtype)
                return network.logits(params, inputs)

            def share(params, images, count):
                return in_batches(functools.partial(logits, params), images, min(BATCH, samples))

            return over_devices(share)(network.params, images)

        outputs = logits_of(policy, seen)[:, 0]
        return logits_of(network), split_outputs(outputs, len(config.policy.candidates))[0]

    return predict, frozen and devices.replicate(frozen.params)


def _found(
    chosen: Float[np.ndarray, "N C"], correct: Bool[np.ndarray, "N T"], config: ConfigDict
) -> Validation:
    candidates = config.policy.candidates
    times = np.asarray(exit_times(chosen, candidates))
    right = np.asarray(at_exit(correct, times))
    earned = np.where(right, 2.0 ** (1 - times), -config.policy.beta)
    accuracy, all_ticks = float(right.mean()), float(correct[:, -1].mean())
    scalars = {
        "validation/accuracy": accuracy,
        "validation/accuracy_all_timesteps": all_ticks,
        "validation/timesteps": float(times.mean()),
        "validation/reward": float(earned.mean()),
        "validation/mean_accuracy": mean_accuracy(chosen, candidates, correct),
    }
    text = f"{accuracy:.2%} at {times.mean():.3f} timesteps, {all_ticks:.2%} at all"
    if len(set(times.tolist())) == 1:
        text += f" (the policy has collapsed: t = {times[0]} for every image)"
    return Validation(scalars["validation/mean_accuracy"], scalars, text)
