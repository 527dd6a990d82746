"""The figures of an evaluation, as plain values."""

import numpy as np
from flax import nnx

from seenn_jax import exits, provenance
from seenn_jax.energy import account, layers, operations
from seenn_jax.engine import Exited
from seenn_jax.exits import Answers, Choice, Chosen, Exit
from seenn_jax.exits.thresholds import exit_losses
from seenn_jax.models.network import for_inference
from seenn_jax.run.inference import Predictor
from seenn_jax.ticks import frames


def figures(
    run: Predictor,
    exit: Exit,
    chosen: Chosen,
    choice: Choice | None,
    answers: Answers,
    exited: Exited,
    energy: bool,
) -> dict:
    """What an evaluation found, for `report`.

    Args:
      answers: all ticks at once, from which static_accuracy, sweeps and SEENN-I come.
      exited: what the run with exits left, of the same samples.
      energy: count operations, too.
    """
    signal = exit.signal(answers)
    times = exit.times(signal, chosen.value)
    if times is None:
        times = np.full(len(answers.labels), run.timesteps)
    about = exit.about(answers, times)
    predictions = exited.logits.argmax(-1)
    static = exits.static_accuracy(answers.correct)
    replayed = exits.at_exit(answers.predictions, times)
    return {
        "exit": exit.name,
        "knob": exit.knob,
        "threshold": chosen.value,
        "threshold_rule": chosen.rule,
        "guarantee": _guarantee(chosen, choice, answers, times),
        "policy": about,
        "energy": _energy(run, answers, exited, about) if energy else None,
        "accuracy": float(np.mean(predictions == answers.labels)),
        "average_timesteps": float(np.mean(exited.timesteps)),
        "exit_shares": exits.exit_shares(exited.timesteps, run.timesteps).tolist(),
        "static_accuracy": static.tolist(),
        "sweep": exit.sweep(signal, answers.correct),
        "aet": float(exits.aet(static)),
        "oracle_aet": float(exits.oracle_aet(answers.correct)),
        "oracle_accuracy": float(np.mean(answers.correct.any(1))),
        "num_samples": len(predictions),
        **_origin(run),
        # Against all T ticks at once: the same but for the order of sums.
        "replayed_accuracy": float(np.mean(exits.at_exit(answers.correct, times))),
        "share_of_exit_times_that_differ": float(np.mean(exited.timesteps != times)),
        "share_of_answers_that_differ": float(np.mean(predictions != replayed)),
    }


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


def _energy(run: Predictor, answers: Answers, exited: Exited, about: dict | None) -> dict:
    counting = for_inference(run.model, run.prepare)
    graph, params = nnx.split(counting)
    count = run.over_images(
        lambda params, x: operations(nnx.merge(graph, params), run.transform(x), run.timesteps),
        params,
    )
    operations_of, rates = count(answers.images)
    return account(
        layers(counting, run.facts.image_shape),
        operations_of,
        rates,
        exited.timesteps,
        policy_macs=(about or {}).get("macs", 0),
        still=not frames(answers.images),
    )
