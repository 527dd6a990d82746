"""The run whose network a policy is for."""

import functools
from operator import getitem
from pathlib import Path

from ml_collections import ConfigDict

from seenn_jax.config import is_policy
from seenn_jax.errors import UserError
from seenn_jax.run import folder

# What a policy's config must share with its network's.
SHARED = (
    "data.name",
    "data.validation",
    "data.train_on_validation",
    "model.name",
    "model.width",
    "model.tau",
    "model.threshold",
    "model.surrogate",
    "activation",
    "quantization_levels",
    "timesteps",
)


def source(config: ConfigDict, workdir: Path, facts: folder.DataFacts) -> Path:
    """The run whose network the policy is for."""
    if not config.init_from:
        fitting = [p for p in folder.runs_in(workdir.parent) if not _misfit(p, config, facts)]
        if not fitting:
            raise UserError(
                f"`config.init_from` is not set, and no run in {workdir.parent}/ has a network "
                f"that fits ({config.model.name} on {config.data.name}, T = {config.timesteps}): "
                "train one first, or set `config.init_from`"
            )
        return fitting[-1]
    path = Path(config.init_from)
    misfit = _misfit(path, config, facts)
    if misfit:
        raise UserError(
            f"`config.init_from` is {path}, which does not fit: {misfit}; give a run that does, or "
            "change the policy's config to match"
        )
    return path


def _misfit(path: Path, config: ConfigDict, facts: folder.DataFacts) -> str | None:
    """What keeps the network of a run from being used, or None."""
    try:
        other, seen = folder.load(path)
    except UserError as error:
        return str(error)
    if is_policy(other):
        return "it is a policy's run itself"
    if not folder.has_checkpoint(path):
        return "it has no checkpoint yet"
    for key in SHARED:
        theirs, ours = (functools.reduce(getitem, key.split("."), c) for c in (other, config))
        if theirs != ours:
            return f"its config.{key} is {theirs!r}, and the policy's is {ours!r}"
    if seen.num_classes != facts.num_classes:
        return f"it has {seen.num_classes} classes, and the data {facts.num_classes}"
    return None if seen.same_images(facts) else "it was trained on other images of the same name"
