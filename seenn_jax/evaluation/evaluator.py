"""Evaluate a run with early exit: threshold from the validation split, figures from the asked one."""

import functools
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax import exits, provenance, run
from seenn_jax.calibration import threshold_for_accuracy
from seenn_jax.data import Split, load_dataset
from seenn_jax.engine import all_logits, make_predict
from seenn_jax.errors import UserError, check_choice
from seenn_jax.training import checkpoints

EXITS = (*exits.SCORES, "full")
SPLITS = ("test", "validation", "train")
TOLERANCE = 0.001  # of accuracy on the validation split, where the threshold is chosen
SWEEP = 200


def evaluate(
    workdir: Path,
    *,
    exit: str = "confidence",
    threshold: float | None = None,
    split: str = "test",
    batch_size: int = 512,
) -> dict:
    """Evaluate the best checkpoint of a run.

    Args:
      workdir: the run.
      exit: one of `EXITS`; "full" runs all T timesteps for every sample.
      threshold: of the exit score, in [0, 1]; None chooses it on the validation split: the fewest
        timesteps on average whose accuracy there is within 0.1 point of that of all T.
      split: one of `SPLITS`, whose figures are returned.
      batch_size: images in one forward pass.

    Returns:
      the result, as `report.write_report` takes it.

    Raises:
      UserError: an argument outside what is allowed; a workdir without a run or checkpoint, or
        with one of another architecture; data that are not there.
    """
    check_choice("exit", exit, EXITS)
    check_choice("split", split, SPLITS)
    if threshold is not None:
        if exit == "full":
            raise UserError(
                f"--threshold={threshold} has no meaning for exit 'full', which runs all "
                f"timesteps: leave it out, or choose one of {', '.join(exits.SCORES)}"
            )
        exits.check_threshold(threshold)
    config, facts = run.load(workdir)
    dataset = load_dataset(
        config.data.name, data_dir=config.data.dir or None, validation=config.data.validation
    )
    samples: Split = getattr(dataset, split)
    if not 1 <= batch_size <= len(samples.labels):
        raise UserError(
            f"--batch_size is {batch_size} and the {split} split has {len(samples.labels)} "
            "images: give a number from 1 to that"
        )
    step, predict = _predictor(workdir, config, facts, batch_size)

    rule = "every sample runs all timesteps"
    if threshold is not None:
        rule = "as given"
    elif exit != "full":
        logits = all_logits(predict, dataset.validation.images, batch_size)
        _, scores, correct = _scores(logits, dataset.validation.labels, exit)
        threshold = threshold_for_accuracy(scores, correct, TOLERANCE)
        rule = (
            f"chosen on the validation split ({len(correct):,} images): the fewest timesteps on "
            f"average within {TOLERANCE:.1%} of its accuracy at T = {config.timesteps}"
        )

    started = time.perf_counter()
    logits = all_logits(predict, samples.images, batch_size)
    seconds = time.perf_counter() - started
    cumulative, scores, correct = _scores(logits, samples.labels, exit)
    timesteps = config.timesteps
    times = np.full(len(correct), timesteps)
    sweep = []
    if exit != "full":
        times = exits.exit_times(scores, threshold)
        grid = _sweep_thresholds(scores)
        rows = zip(grid, *exits.sweep(scores, correct, grid), strict=True)
        names = ("threshold", "accuracy", "average_timesteps")
        sweep = [dict(zip(names, map(float, row), strict=True)) for row in rows]
    static = exits.static_accuracy(correct)
    return {
        "exit": exit,
        "threshold": threshold,
        "threshold_rule": rule,
        "accuracy": float(np.mean(exits.at_exit(correct, times))),
        "average_timesteps": float(exits.average_timesteps(times)),
        "exit_shares": exits.exit_shares(times, timesteps).tolist(),
        "static_accuracy": static.tolist(),
        "sweep": sweep,
        "aet": float(exits.aet(static)),
        "oracle_aet": float(exits.oracle_aet(correct)),
        "num_samples": len(correct),
        "timesteps": timesteps,
        "dataset": config.data.name,
        "dataset_note": config.data.note or None,
        "split": split,
        "seed": config.seed,
        "revision": provenance.revision(),
        "versions": provenance.versions(),
        "device": provenance.device(),
        "workdir": str(workdir),
        "checkpoint_step": step,
        "images_per_second": len(correct) / seconds,
    }


def _predictor(workdir: Path, config: ConfigDict, facts: run.DataFacts, batch_size: int):
    """(step of the best checkpoint, compiled `images -> logits` of it)."""
    if not (workdir / checkpoints.FOLDER).is_dir():
        raise _no_checkpoint(workdir)
    graph, params, stats = nnx.split(run.build(config, facts), nnx.Param, nnx.BatchStat)
    with checkpoints.open_checkpoints(workdir, read_only=True) as manager:
        if not manager.all_steps():
            raise _no_checkpoint(workdir)
        step = checkpoints.best_step(manager)
        if config.ema:
            template = {"average": (params, stats)}
        else:
            template = {"params": params, "stats": stats}
        state = checkpoints.restore(manager, step, template)
    params, stats = state["average"] if config.ema else (state["params"], state["stats"])
    predict = make_predict(
        graph, *facts.normalization, timesteps=config.timesteps, dtype=config.model.dtype
    )
    images = jax.ShapeDtypeStruct((batch_size, *facts.image_shape), np.uint8)
    compiled = jax.jit(predict).lower(params, stats, images).compile()
    return step, functools.partial(compiled, params, stats)


def _no_checkpoint(workdir: Path) -> UserError:
    return UserError(
        f"{workdir} has no checkpoint yet: train it with python train.py --workdir={workdir} and "
        "its config, or give another --workdir"
    )


def _scores(logits: np.ndarray, labels: np.ndarray, exit: str):
    """(cumulative logits [N, T, K], scores [N, T] or None, correct [N, T])."""
    exits.check_finite(logits)
    cumulative = exits.accumulate(logits)
    correct = np.asarray(cumulative.argmax(-1)) == labels[:, None]
    scores = None if exit == "full" else np.asarray(exits.SCORES[exit](cumulative))
    return cumulative, scores, correct


def _sweep_thresholds(scores: np.ndarray) -> np.ndarray:
    """Thresholds spread evenly over the scores that decide, and 0 and 1."""
    inner = np.quantile(scores[:, :-1], np.linspace(0, 1, SWEEP - 2)) if scores.size else []
    return np.unique(np.concatenate([[0.0], inner, [1.0]]).astype(scores.dtype))
