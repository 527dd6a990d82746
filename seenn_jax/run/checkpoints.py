"""Checkpoints through orbax: the latest and the best on validation, written asynchronously.

A checkpoint is a flat dict of arrays by name ("params.stem.conv.kernel"), readable without this
package's classes. Orbax is slow to import, which functions do that need it.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax import devices
from seenn_jax.errors import UserError
from seenn_jax.run import build
from seenn_jax.run.folder import CHECKPOINTS, DataFacts

Manager = Any  # orbax.checkpoint.CheckpointManager


def open_checkpoints(workdir: Path, *, read_only: bool = False) -> Manager:
    """The checkpoints of a run; close it (or use `with`) to wait for what is being written."""
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers

    policy = checkpoint_managers.AnyPreservationPolicy(
        [
            checkpoint_managers.LatestN(1),
            checkpoint_managers.BestN(
                get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
    )
    with _no_warnings():
        options = ocp.CheckpointManagerOptions(
            best_fn=_score, preservation_policy=policy, read_only=read_only
        )
        return ocp.CheckpointManager(
            Path(workdir, CHECKPOINTS).resolve(),
            item_handlers=ocp.StandardCheckpointHandler(),
            options=options,
        )


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"] if "score" in metrics else metrics["accuracy"]  # of older runs


def save(manager: Manager, step: int, state: Any, score: float) -> None:
    """Begin to write `state`; `score` on validation decides which checkpoint is the best.

    It is -inf where nothing was validated.
    """
    import orbax.checkpoint as ocp

    manager.save(
        step,
        args=ocp.args.StandardSave(named(state)),
        metrics={"score": score},
    )


def whole_steps(manager: Manager) -> list[int]:
    """Steps of the checkpoints that are whole, ascending.

    One without metrics is what is left where a process was killed while deleting it.
    """
    return sorted(step for step in manager.all_steps() if manager.metrics(step) is not None)


def best_step(manager: Manager) -> int:
    """Step of the checkpoint with the best validation score; of several, the latest."""
    return max(whole_steps(manager), key=lambda s: (_score(manager.metrics(s)), s))


def restore(manager: Manager, step: int, template: Any) -> Any:
    """The state of `step`, in the structure of `template` (of arrays or `jax.eval_shape`'s).

    Names that `template` lacks are ignored, so that an evaluation reads what it needs.

    Raises:
      UserError: the checkpoint is of another architecture.
    """
    import orbax.checkpoint as ocp

    wanted = named(template)
    saved = dict(manager.item_metadata(step).items())
    for name, leaf in wanted.items():
        if name not in saved or tuple(saved[name].shape) != leaf.shape:
            found = f"has it as {tuple(saved[name].shape)}" if name in saved else "lacks it"
            raise UserError(
                f"checkpoint {manager.directory}/{step} is of another architecture: {name} is "
                f"{leaf.shape} in this network and the checkpoint {found}; use the config that it "
                "was trained with"
            )
    # Wherever it was written: on every device that there is now.
    sharding = devices.everywhere()
    abstract = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        for name, leaf in saved.items()
    }
    arrays = manager.restore(step, args=ocp.args.StandardRestore(abstract))
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in wanted])


def load_model(workdir: Path, config: ConfigDict, facts: DataFacts) -> tuple[nnx.Module, int]:
    """(network of the checkpoint that was best on validation, its step).

    Raises:
      UserError: there is no checkpoint, or one of another architecture.
    """
    # Its structure and shapes only: drawing parameters would take longer than reading them.
    abstract = nnx.eval_shape(lambda: build.network(config, facts))
    graph, params, stats = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    if config.ema:
        state, step = _restore_best(workdir, {"average": (params, stats)})
        return nnx.merge(graph, *state["average"]), step
    state, step = _restore_best(workdir, {"params": params, "stats": stats})
    return nnx.merge(graph, state["params"], state["stats"]), step


def load_policy(workdir: Path, config: ConfigDict, facts: DataFacts) -> nnx.Module:
    """The policy network that belongs to `load_model`'s; the same errors."""
    abstract = nnx.eval_shape(lambda: build.policy(config, facts))
    graph, *parts = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    state, _ = _restore_best(workdir, {"policy": tuple(parts)})
    return nnx.merge(graph, *state["policy"])


def _restore_best(workdir: Path, template: Any) -> tuple[Any, int]:
    missing = UserError(
        f"{workdir} has no checkpoint yet: train it with python train.py --workdir={workdir} and "
        "its config, or give another --workdir"
    )
    if not (workdir / CHECKPOINTS).is_dir():
        raise missing
    with open_checkpoints(workdir, read_only=True) as manager:
        if not whole_steps(manager):
            raise missing
        step = best_step(manager)
        return devices.on_host_device(restore(manager, step, template)), step


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence absl's logger: orbax warns of what opening a folder read-only means."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def named(tree: Any) -> dict[str, Any]:
    """The leaves of `tree` by the dotted path to them, in the tree's order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)

    def part(key):
        for attribute in ("name", "key", "idx"):
            if hasattr(key, attribute):
                return str(getattr(key, attribute))
        raise TypeError(f"a path with {key!r} has no name")

    return {".".join(p for p in map(part, path) if p != "value"): leaf for path, leaf in leaves}
