"""Runs that take no training."""

from seenn_jax.run import build, checkpoints, folder
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import initial_state


def untrained(workdir, config, facts):
    """A run whose only checkpoint, of step 1, has fresh parameters."""
    folder.claim(workdir, config, facts)
    _, state = initial_state(build.network(config, facts), make_optimizer(config, 1), config.ema)
    with checkpoints.open_checkpoints(workdir) as manager:
        checkpoints.save(manager, 1, state, 0.1)
    return workdir
