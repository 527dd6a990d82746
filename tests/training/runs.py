"""What is in the folder of a run: its log, and the arrays of its checkpoints."""

import json

import jax

from seenn_jax.run import checkpoints


def metrics_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def latest_of(workdir):
    """(step, arrays by name) of the latest checkpoint."""
    with checkpoints.open_checkpoints(workdir, read_only=True) as manager:
        step = manager.latest_step()
    return step, saved(workdir, step)


def saved(workdir, step=None):
    """Arrays by name of a checkpoint, the latest by default."""
    with checkpoints.open_checkpoints(workdir, read_only=True) as manager:
        step = manager.latest_step() if step is None else step
        template = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in manager.item_metadata(step).items()
        }
        return checkpoints.restore(manager, step, template)
