"""Checkpoints through orbax: the two latest and the best on validation, written asynchronously.

A checkpoint is a flat dict of arrays by name ("params.stem.conv.kernel"), readable without this
package's classes. How they are read is in `stored.py`. Orbax is slow to import, which functions do
that need it.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax import hosts
from seenn_jax.errors import UserError
from seenn_jax.run import build, stored
from seenn_jax.run.folder import CHECKPOINTS, DataFacts
from seenn_jax.run.stored import Damaged, steps

Manager = Any  # orbax.checkpoint.CheckpointManager
LATEST = 2  # that are kept: the newest may be damaged
DELETED = "deleted"  # the folder that old ones are moved to, so that none is ever half deleted
UNFINISHED = "*.orbax-checkpoint-tmp*"
OVERHEAD, EACH = 2**16, 2**10  # bytes of a checkpoint, and of each array, besides its own
BESIDE = "beside."  # how the names of numbers begin that are not of the state
TRIES = 20  # to read a run that is being trained


@contextlib.contextmanager
def open_checkpoints(workdir: Path) -> Iterator[Manager]:
    """The checkpoints of a run, to write more; at the end it waits for what is being written.

    Raises:
      UserError: one can't be written.
    """
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers

    policy = checkpoint_managers.AnyPreservationPolicy(
        [
            checkpoint_managers.LatestN(LATEST),
            checkpoint_managers.BestN(
                get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
    )
    with _writing(workdir):
        options = ocp.CheckpointManagerOptions(
            best_fn=_score, preservation_policy=policy, todelete_subdir=DELETED
        )
        manager = ocp.CheckpointManager(
            Path(workdir, CHECKPOINTS).resolve(),
            item_handlers=ocp.StandardCheckpointHandler(),
            options=options,
        )
        _clear(manager)
    try:
        yield manager
    finally:
        try:
            with _writing(workdir):
                manager.close()
        finally:
            _clear(manager)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"] if "score" in metrics else metrics["accuracy"]  # of older runs


def _clear(manager: Manager) -> None:
    """Delete what was moved away to be deleted, and what a killed process has not finished."""
    if jax.process_index() == 0:
        folder = Path(manager.directory)
        for path in (folder / DELETED, *folder.glob(UNFINISHED)):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _writing(workdir: Path) -> Iterator[None]:
    """Turn whatever writing a checkpoint raises into one sentence."""
    try:
        with stored.quietly():
            yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"a checkpoint can't be written to {workdir / CHECKPOINTS} ({stored.reason(error)}): "
            "make room there, or mend what it says; the same command then continues from the "
            "latest that is whole"
        ) from error


def save(
    manager: Manager,
    step: int,
    state: Any,
    score: float,
    beside: Mapping[str, float] | None = None,
) -> None:
    """Begin to write `state`; `score` on validation decides which checkpoint is the best.

    It is -inf where nothing was validated.

    Args:
      beside: numbers that a resumed run needs besides; see `resumed`.

    Raises:
      UserError: this one is not written, or the one before could not be.
    """
    import orbax.checkpoint as ocp

    arrays = named(state)
    arrays |= {f"{BESIDE}{name}": np.float64(value) for name, value in (beside or {}).items()}
    workdir = Path(manager.directory).parent
    with _writing(workdir):
        manager.wait_until_finished()
        _clear(manager)
        _check_room(Path(manager.directory), arrays)
        written = manager.save(
            step,
            args=ocp.args.StandardSave(arrays),
            metrics=stored.metrics(step, float(score), stored.checksum_of(arrays)),
        )
    if not written:
        raise UserError(
            f"checkpoint {step} of {workdir} was not written, since a later one is there "
            f"({manager.latest_step()}): move that away, or give another --workdir"
        )


def finish(manager: Manager) -> None:
    """Wait for what is being written.

    Raises:
      UserError: it can't be.
    """
    with _writing(Path(manager.directory).parent):
        manager.wait_until_finished()


def set_score(manager: Manager, step: int, score: float) -> None:
    """Give a checkpoint the score of its validation, which came after it was written.

    Raises:
      UserError: it can't be written.
    """
    workdir = Path(manager.directory).parent
    if jax.process_index() == 0:
        with _writing(workdir):
            stored.set_score(workdir, step, float(score))
    hosts.wait_for_all("the score of a checkpoint")
    manager.reload()  # which has kept the scores


def _check_room(folder: Path, arrays: dict[str, Any]) -> None:
    """Raise an OSError where a checkpoint finds no room, before any of it is written.

    Its threads would tell of a full disk at length, each by itself.
    """
    needed = sum(array.nbytes for array in arrays.values()) + OVERHEAD + EACH * len(arrays)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def set_aside_damaged(workdir: Path) -> list[str]:
    """Rename the checkpoints that are damaged; returns a sentence on each."""
    said = []
    for step in steps(workdir):
        try:
            stored.arrays(workdir, step)
        except Damaged as error:
            said.append(f"{error}; it is set aside as {stored.set_aside(workdir, step).name}.")
    return said


def is_whole(workdir: Path, step: int) -> bool:
    """Whether there is a checkpoint of this step, as it was written."""
    try:
        return step in steps(workdir) and bool(stored.arrays(workdir, step))
    except Damaged:
        return False


def best_step(workdir: Path) -> int:
    """Step of the checkpoint with the best validation score; of several, the latest.

    Raises:
      Damaged: a score can't be read.
    """
    return max(steps(workdir), key=lambda step: (stored.score(workdir, step), step))


def restore(workdir: Path, step: int, template: Any) -> Any:
    """The state of `step`, of NumPy, in the structure of `template` (arrays or `jax.eval_shape`'s).

    Names that `template` lacks are ignored, so that an evaluation reads what it needs.

    Raises:
      Damaged: the checkpoint can't be read, or is not as it was written.
      UserError: it is of another architecture.
    """
    return resumed(workdir, step, template)[0]


def resumed(workdir: Path, step: int, template: Any) -> tuple[Any, dict[str, float]]:
    """(the state of `step` as `restore` gives it, the numbers that were saved beside it).

    Such numbers are the sums within an epoch; the same errors.
    """
    wanted, saved = named(template), stored.arrays(workdir, step)
    for name, leaf in wanted.items():
        if name not in saved or saved[name].shape != leaf.shape:
            found = f"has it as {saved[name].shape}" if name in saved else "lacks it"
            raise UserError(
                f"checkpoint {stored.place(workdir, step)} is of another architecture: {name} is "
                f"{leaf.shape} in this network and the checkpoint {found}; use the config that it "
                "was trained with"
            )
    state = jax.tree.unflatten(jax.tree.structure(template), [saved[name] for name in wanted])
    beside = {k.removeprefix(BESIDE): float(v) for k, v in saved.items() if k.startswith(BESIDE)}
    return state, beside


def load_model(
    workdir: Path, config: ConfigDict, facts: DataFacts, checkpoint: int | None = None
) -> tuple[nnx.Module, int]:
    """(network of the checkpoint that was best on validation, or of this step; its step).

    Raises:
      UserError: there is no checkpoint, no such one, or a damaged one, or of another architecture.
    """
    # Its structure and shapes only: drawing parameters would take longer than reading them.
    abstract = nnx.eval_shape(lambda: build.network(config, facts))
    graph, params, stats = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    if config.ema:
        state, step = _restored(workdir, {"average": (params, stats)}, checkpoint)
        return nnx.merge(graph, *state["average"]), step
    state, step = _restored(workdir, {"params": params, "stats": stats}, checkpoint)
    return nnx.merge(graph, state["params"], state["stats"]), step


def load_policy(
    workdir: Path, config: ConfigDict, facts: DataFacts, checkpoint: int | None = None
) -> nnx.Module:
    """The policy network that belongs to `load_model`'s; the same errors."""
    abstract = nnx.eval_shape(lambda: build.policy(config, facts))
    graph, *parts = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    state, _ = _restored(workdir, {"policy": tuple(parts)}, checkpoint)
    return nnx.merge(graph, *state["policy"])


def _restored(workdir: Path, template: Any, checkpoint: int | None) -> tuple[Any, int]:
    """(the state of a checkpoint, its step), while the run may be trained on."""
    for _ in range(TRIES):
        there = steps(workdir)
        _check_there(workdir, there, checkpoint)
        try:
            step = best_step(workdir) if checkpoint is None else checkpoint
            state = restore(workdir, step, template)
        except Damaged as error:
            if steps(workdir) != there:  # Training has replaced it meanwhile.
                continue
            raise UserError(f"{error}: {_advice(there, error.step)}") from error
        device = jax.local_devices()[0]
        return jax.device_put(state, device), step
    raise UserError(f"{workdir} is written faster than it can be read: try again later")


def _advice(there: list[int], damaged: int) -> str:
    others = ", ".join(str(step) for step in there if step != damaged)
    if others:
        return f"restore it from a copy, or pick another one by `checkpoint`: {others}"
    return "restore it from a copy, or train the run again, which begins anew"


def _check_there(workdir: Path, there: list[int], checkpoint: int | None) -> None:
    if not there:
        raise UserError(
            f"{workdir} has no checkpoint yet: train it with python train.py --workdir={workdir} "
            "and its config, or give another --workdir"
        )
    if checkpoint is not None and checkpoint not in there:
        raise UserError(
            f"`checkpoint` is {checkpoint}, and {workdir} has {', '.join(map(str, there))}: give "
            "one of these, or leave it out for the best on validation"
        )


def named(tree: Any) -> dict[str, Any]:
    """The leaves of `tree` by the dotted path to them, in the tree's order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)

    def part(key):
        for attribute in ("name", "key", "idx"):
            if hasattr(key, attribute):
                return str(getattr(key, attribute))
        raise TypeError(f"a path with {key!r} has no name")

    return {".".join(p for p in map(part, path) if p != "value"): leaf for path, leaf in leaves}
