"""The figures of an evaluation, as plain values."""

from typing import Any

import numpy as np
from flax import nnx

from seenn_jax import exits, memory, provenance
from seenn_jax.energy import account, layers, operations
from seenn_jax.evaluation.answers import (
    PerImage,
    by_class,
    calibration,
    confidence_by_timestep,
    counts,
    mistakes,
)
from seenn_jax.exits import Answers, Choice, Chosen, Exit, made
from seenn_jax.exits.thresholds import exit_losses
from seenn_jax.models.network import for_inference
from seenn_jax.run.inference import Predictor


def figures(
    run: Predictor,
    exit: Exit,
    chosen: Chosen,
    choice: Choice | None,
    answers: Answers,
    found: PerImage,
    energy: bool,
) -> dict:
    """What an evaluation found, for `report`.

    Args:
      answers: all ticks at once, from which static_accuracy, sweeps and SEENN-I come.
      found: of each of the same samples, what the run with exits left.
      energy: count operations, too.
    """
    signal = made.signal_of(exit, answers)
    times = made.times_of(exit, signal, chosen.value, answers)
    about = made.about_of(exit, answers, times)
    static = exits.static_accuracy(answers.correct)
    replayed = exits.at_exit(answers.predictions, times)
    return {
        "exit": exit.name,
        "knob": exit.knob,
        "threshold": chosen.value,
        "threshold_rule": chosen.rule,
        "guarantee": _guarantee(chosen, choice, answers, times),
        "policy": about,
        "energy": _energy(run, answers, found, about) if energy else None,
        "accuracy": float(np.mean(found.right)),
        "average_timesteps": float(np.mean(found.timesteps)),
        "exit_shares": exits.exit_shares(found.timesteps, run.timesteps).tolist(),
        "static_accuracy": static.tolist(),
        "sweep": _sweep(exit, signal, answers),
        "by_class": by_class(found, run.facts.names),
        "mistakes": mistakes(found),
        "calibration": calibration(found.sure, found.right),
        "confidence_by_timestep": confidence_by_timestep(found.confidence, answers.correct),
        "aet": float(exits.aet(static)),
        "oracle_aet": float(exits.oracle_aet(answers.correct)),
        "oracle_accuracy": float(np.mean(answers.correct.any(1))),
        "num_samples": len(found.labels),
        **_origin(run),
        # Against all T ticks at once: the same but for the order of sums.
        "replayed_accuracy": float(np.mean(exits.at_exit(answers.correct, times))),
        "share_of_exit_times_that_differ": float(np.mean(found.timesteps != times)),
        "share_of_answers_that_differ": float(np.mean(found.predictions != replayed)),
    }


def _sweep(exit: Exit, signal: Any, answers: Answers) -> list[dict]:
    """The rows of the exit's sweep, with how many leave at each t."""

    def at(value):
        return counts(made.times_of(exit, signal, value, answers), answers.correct.shape[1])

    rows = made.sweep_of(exit, signal, answers)
    return [row | {"exit_counts": at(row["threshold"])} for row in rows]


def _origin(run: Predictor) -> dict:
    config = run.config
    return {
        "timesteps": run.timesteps,
        "dataset": config.data.name,
        "dataset_note": config.data.note or None,
        "seed": config.seed,
        "workdir": str(run.workdir),
        "checkpoint_step": run.step,
        "network": run.kind,
        "precision": run.precision,
        **provenance.origin(),
    }


def _guarantee(
    chosen: Chosen, choice: Choice | None, answers: Answers, times: np.ndarray
) -> dict | None:
    """What was certified, and the mean loss on the split that is reported."""
    if chosen.guarantee is None:
        return None
    losses = exit_losses(answers.predictions, choice.loss, answers.labels)
    return chosen.guarantee | {"reported_risk": float(np.mean(exits.at_exit(losses, times)))}


def _energy(run: Predictor, answers: Answers, found: PerImage, about: dict | None) -> dict:
    counting = for_inference(run.model, run.prepare)
    graph, params = nnx.split(counting)
    count = run.over_images(
        lambda params, x: operations(nnx.merge(graph, params), run.inputs(x), run.timesteps),
        params,
    )
    operations_of, rates = count(answers.images)
    shape, times, still = run.facts.image_shape, found.timesteps, not run.facts.frames
    macs = (about or {}).get("macs", 0)
    spent = account(
        layers(counting, shape), operations_of, rates, times, policy_macs=macs, still=still
    )
    moved = memory.account(memory.sizes(counting, shape), times, run.timesteps, still=still)
    return spent | {"memory": moved}
