"""What is in the folder of a run: its log, and the arrays of its checkpoints."""

from seenn_jax.run import checkpoints, folder, stored


def metrics_of(workdir):
    return folder.metrics(workdir)


def latest_of(workdir):
    """(step, arrays by name) of the latest checkpoint."""
    step = max(checkpoints.steps(workdir))
    return step, saved(workdir, step)


def saved(workdir, step=None):
    """Arrays by name of a checkpoint, the latest by default."""
    return stored.arrays(workdir, max(checkpoints.steps(workdir)) if step is None else step)
