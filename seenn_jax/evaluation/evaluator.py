"""Evaluate a run with early exit: the validation split chooses, the asked split is reported."""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax import calibration, conversion, devices, engine, exits, policy, provenance, run
from seenn_jax.config import is_ann, is_policy
from seenn_jax.data import Dataset, Split, normalize
from seenn_jax.energy import account, layers, operations
from seenn_jax.errors import UserError, check_choice
from seenn_jax.interop import nir
from seenn_jax.models import Network, first_ticks, for_inference, inference_network
from seenn_jax.models.policy import seen
from seenn_jax.training.checkpoints import load_model, load_policy

EXITS = (*exits.SCORES, "patience", "policy", "full")
SPLITS = ("test", "validation", "train")
DTYPES = ("bfloat16", "float32", "int8")
BATCH = 256
TOLERANCE = 0.001  # of accuracy on the validation split, where nothing else is asked for
SWEEP = 200  # thresholds
REPORTED = (1, 2, 4, 8, 16, 32)  # timesteps of the conversion report


class Choice(NamedTuple):
    """How the threshold is chosen; at most one of the first three, TOLERANCE where none is.

    Attributes:
      threshold: as given, in [0, 1]; for patience, the number of equal answers in a row; for a
        policy, the price of a timestep in nats (`policy.exit_times`), 0 where nothing is asked for.
      target_timesteps: the average number of timesteps on the validation split.
      risk: eps of `calibration.threshold_with_guarantee`, with `delta` and `loss`.
      tolerance: largest loss of accuracy on the validation split against all T.
    """

    threshold: float | None = None
    target_timesteps: float | None = None
    risk: float | None = None
    delta: float = 0.1
    loss: str = "disagreement"
    tolerance: float = TOLERANCE


DEFAULT = Choice()


def evaluate(
    workdir: Path,
    *,
    exit: str = "confidence",
    choice: Choice = DEFAULT,
    temperature: bool = False,
    method: str = "slots",
    dtype: str | None = None,
    split: str = "test",
    batch_size: int | None = None,
    timesteps: int | None = None,
    ann: bool = False,
    percentile: float | None = None,
    energy: bool = False,
) -> dict:
    """Evaluate the best checkpoint of a run; an ordinary network (ANN) is converted first.

    Args:
      workdir: the run.
      exit: one of `EXITS`; "full" runs all T timesteps for every sample.
      choice: of the threshold.
      temperature: divide the cumulative logits at each t by a temperature fitted on the validation
        split (Guo et al. 2017).
      method: one of `engine.METHODS`, by which the exits are run.
      dtype: of inference, one of `DTYPES`; None is the run's. int8 is for spikes and the weights
        that meet them, the rest stays in the run's.
      split: one of `SPLITS`, whose figures are returned.
      batch_size: number of slots, or images in one forward pass. None: 256, or the size of the
        smallest split in use.
      timesteps: T; None is the run's. Of event data the first T frames.
      ann: evaluate the ANN itself, once ("full", T = 1), instead of what it is converted to.
      percentile: of the activations of a run with ReLUs, where their thresholds are put; None is
        `conversion.PERCENTILE`.
      energy: run all timesteps once more and count operations, as in `energy.account`.

    Returns:
      the result, as `report.write_report` takes it.

    Raises:
      UserError: an argument outside what is allowed; a workdir without a run or checkpoint, or
        with one of another architecture; data that are not there.
    """
    check_choice("exit", exit, EXITS)
    check_choice("split", split, SPLITS)
    check_choice("method", method, engine.METHODS)
    config, facts = run.load(workdir)
    converted = is_ann(config) and not ann
    if ann:
        _check_ann("--ann", workdir, config)
        if energy:
            raise UserError(
                "--energy counts the spikes of a network, and --ann's has none: leave --ann out; "
                "the ANN's own cost stands beside the converted network's"
            )
        exit, timesteps = "full", 1
    timesteps = config.timesteps if timesteps is None else timesteps
    if timesteps < 1:
        raise UserError(f"--timesteps is {timesteps}: it must be at least 1; give a larger number")
    if percentile is not None and not (converted and config.activation == "relu"):
        raise UserError(
            f"--percentile={percentile} is for converting a run of config.activation=relu, and "
            f"{workdir} is of {config.activation!r}{' and not converted' * ann}: leave it out"
        )
    if dtype == "int8" and is_ann(config):
        raise UserError(
            "--dtype=int8 needs spikes of 0 and 1, and those of a converted network carry their "
            "layer's threshold: choose bfloat16 or float32"
        )
    if dtype is not None:
        check_choice("dtype", dtype, DTYPES)
        if dtype != "int8":
            config.model.dtype = dtype
    _check(choice, exit, timesteps)
    if exit == "policy":
        _check_policy(workdir, config, timesteps)
    dataset = _first_ticks(run.load_data(config), facts, timesteps)
    samples = getattr(dataset, split)
    if batch_size is None:
        batch_size = min(BATCH, len(samples.labels))
    elif not 1 <= batch_size <= len(samples.labels):
        raise UserError(
            f"--batch_size is {batch_size} and the {split} split has {len(samples.labels)} "
            "images: give a number from 1 to that"
        )
    model, step = load_model(workdir, config, facts)
    if converted:
        model = run.convert(model, config, facts, dataset, percentile)
    network = inference_network(model, facts.image_shape, timesteps, int8=dtype == "int8")
    mean, std = facts.normalization
    transform = functools.partial(normalize, mean=mean, std=std, dtype=config.model.dtype)

    def shown(images):
        return transform(seen(images))

    logits_of = _over_images(network.logits, network.params, transform, batch_size)

    chooser, validation = None, None
    if exit == "policy":
        chooser = _load_chooser(workdir, config, facts, shown, batch_size)
    temperatures = np.full(timesteps, conversion.EXIT_TEMPERATURE) if converted else None
    if temperature or (exit not in ("full", "policy") and choice.threshold is None):
        logits = logits_of(dataset.validation.images)
        if temperature:
            temperatures = calibration.fit_temperatures(
                exits.accumulate(logits), dataset.validation.labels
            )
        validation = _replay(logits, dataset.validation.labels, exit, temperatures)
    if exit == "policy":
        threshold, rule = _choose_price(choice, chooser, dataset.validation)
        guarantee = None
    else:
        threshold, rule, guarantee = _choose(choice, exit, validation, timesteps)

    logits = logits_of(samples.images)
    replayed = _replay(logits, samples.labels, exit, temperatures)
    scale = exits.logit_scale(timesteps, temperature=temperatures)
    exited, seconds = _run_exits(
        network,
        transform,
        samples.images,
        _make_criterion(exit, threshold, chooser, shown, batch_size),
        chooser.network.params if chooser else (),
        scale,
        timesteps,
        batch_size,
        method,
    )
    exits.check_finite(exited.logits)
    predictions = exited.logits.argmax(-1)
    times = np.full(len(predictions), timesteps)
    sweep, policy_report = [], None
    if exit == "policy":
        chosen = chooser.logits_of(samples.images)
        exits.check_finite(chosen)
        times = np.asarray(policy.exit_times(chosen, chooser.candidates, threshold))
        sweep = _sweep_prices(chosen, chooser.candidates, replayed.correct)
        beside = _replay(logits, samples.labels, "confidence", temperatures)
        network_macs = _dense_macs(model, facts)
        policy_report = _report_policy(chooser, network_macs, config, times, beside)
    elif exit != "full":
        times = np.asarray(exits.exit_times(replayed.scores, _exit_above(exit, threshold)))
        sweep = _sweep(replayed, exit)
    if guarantee:
        losses = calibration.exit_losses(replayed.predictions, choice.loss, samples.labels)
        guarantee["reported_risk"] = float(np.mean(exits.at_exit(losses, times)))
    spent = None
    if energy:
        counting = for_inference(model, int8=dtype == "int8")
        graph, params = nnx.split(counting)
        count = _over_images(
            lambda params, x: operations(nnx.merge(graph, params), x, timesteps),
            params,
            transform,
            batch_size,
        )
        spent = account(
            layers(counting, facts.image_shape),
            *count(samples.images),
            exited.timesteps,
            policy_macs=chooser.macs if chooser else 0,
            still=samples.images.ndim == 4,
        )
    static = exits.static_accuracy(replayed.correct)
    return {
        "exit": exit,
        "threshold": threshold,
        "threshold_rule": rule,
        "guarantee": guarantee,
        "policy": policy_report,
        "energy": spent,
        "temperatures": None if temperatures is None else np.asarray(temperatures).tolist(),
        "accuracy": float(np.mean(predictions == samples.labels)),
        "average_timesteps": float(np.mean(exited.timesteps)),
        "exit_shares": exits.exit_shares(exited.timesteps, timesteps).tolist(),
        "static_accuracy": static.tolist(),
        "sweep": sweep,
        "aet": float(exits.aet(static)),
        "oracle_aet": float(exits.oracle_aet(replayed.correct)),
        "oracle_accuracy": float(np.mean(replayed.correct.any(1))),
        "num_samples": len(predictions),
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
        "network": "ANN" if ann else "converted" if converted else "spiking",
        "method": method,
        "dtype": dtype or config.model.dtype,
        "batch_size": batch_size,
        "images_per_second": len(predictions) / seconds,
        # Against all T ticks at once, from which static_accuracy, sweeps and SEENN-I come: the same
        # in float32, a rounding matter in bfloat16.
        "replayed_accuracy": float(np.mean(exits.at_exit(replayed.correct, times))),
        "share_of_exit_times_that_differ": float(np.mean(exited.timesteps != times)),
        "share_of_answers_that_differ": float(
            np.mean(predictions != exits.at_exit(replayed.predictions, times))
        ),
    }


def conversion_report(
    workdir: Path,
    *,
    split: str = "test",
    dtype: str | None = None,
    percentile: float | None = None,
) -> dict:
    """How near a run's converted network comes to its ANN at each t of `REPORTED`.

    Args:
      workdir: a run of an ANN.
      split, dtype, percentile: as for `evaluate`.

    Returns:
      what `conversion.compare` finds, and workdir, split, activation, quantization_levels, dtype.

    Raises:
      UserError: as `evaluate`; a run of a directly trained network.
    """
    check_choice("split", split, SPLITS)
    config, facts = run.load(workdir)
    _check_ann("--conversion_report", workdir, config)
    if dtype is not None:
        check_choice("dtype", dtype, ("bfloat16", "float32"))
        config.model.dtype = dtype
    dataset = run.load_data(config)
    model, _ = load_model(workdir, config, facts)
    snn = run.convert(model, config, facts, dataset, percentile)
    batches = run.batches(getattr(dataset, split), config, facts)
    ann = nnx.view(model, use_running_average=True)
    compared = conversion.compare(ann, snn, batches, REPORTED)
    return compared | {
        "workdir": str(workdir),
        "dataset": config.data.name,
        "split": split,
        "activation": config.activation,
        "quantization_levels": config.quantization_levels if config.activation == "qcfs" else None,
        "dtype": config.model.dtype,
    }


def export_nir(workdir: Path, path: Path, *, percentile: float | None = None) -> None:
    """Write the spiking network of a run, converted if need be, to a new file; see `interop.nir`.

    Args:
      workdir, percentile: as for `evaluate`.
      path: of the file.
    """
    nir.check_path(path)
    config, facts = run.load(workdir)
    model, _ = load_model(workdir, config, facts)
    if is_ann(config):
        model = run.convert(model, config, facts, run.load_data(config), percentile)
    mean, std = facts.normalization
    about = {"mean": mean, "std": std, "timesteps": config.timesteps, "dataset": config.data.name}
    nir.write(path, model, facts.image_shape, metadata=about)


def _check_ann(flag: str, workdir: Path, config: ConfigDict) -> None:
    if not is_ann(config):
        raise UserError(
            f"{flag} is for a run whose network was an ANN, and {workdir} is of a directly trained "
            "spiking network: leave it out, or give the --workdir of a run of "
            "configs/digits_qcfs.py"
        )


def _first_ticks(dataset: Dataset, facts: run.DataFacts, timesteps: int) -> Dataset:
    """Event data of so many timesteps; still images as they are."""
    if not facts.frames:
        return dataset
    if timesteps > facts.frames:
        raise UserError(
            f"--timesteps is {timesteps} and {dataset.name} was trained on with {facts.frames} "
            "frames of a recording, one for each timestep: give at most that"
        )

    def cut(split):
        return Split(first_ticks(split.images, timesteps), split.labels)

    return dataset._replace(
        train=cut(dataset.train), validation=cut(dataset.validation), test=cut(dataset.test)
    )


class _Replay(NamedTuple):
    """Cached logits at every t, as the exit criterion sees them."""

    scores: np.ndarray | None  # [N, T]
    predictions: np.ndarray  # [N, T]
    labels: np.ndarray  # [N]
    correct: np.ndarray  # [N, T]


def _replay(logits: np.ndarray, labels: np.ndarray, exit: str, temperatures) -> _Replay:
    exits.check_finite(logits)
    cumulative = exits.accumulate(logits, temperature=temperatures)
    predictions = np.asarray(cumulative.argmax(-1))
    scores = None
    if exit in exits.SCORES:
        scores = np.asarray(exits.SCORES[exit](cumulative))
    elif exit == "patience":
        scores = np.asarray(exits.streaks(predictions))
    return _Replay(scores, predictions, labels, predictions == labels[:, None])


def _check(choice: Choice, exit: str, timesteps: int) -> None:
    given = {
        name: value
        for name in ("threshold", "target_timesteps", "risk")
        if (value := getattr(choice, name)) is not None
    }
    if given and exit == "full":
        name, value = next(iter(given.items()))
        raise UserError(
            f"--{name}={value} has no meaning for exit 'full', which runs all timesteps: leave it "
            f"out, or choose one of {', '.join(EXITS[:-1])}"
        )
    if len(given) > 1:
        flags = " and ".join(f"--{name}={value}" for name, value in given.items())
        raise UserError(f"{flags} choose one threshold in different ways: give one of them")
    if not 0 <= choice.tolerance < 1:
        raise UserError(
            f"--tolerance is {choice.tolerance}: give a fraction of 1, from 0 to below 1"
        )
    if choice.threshold is not None:
        if exit == "policy":
            if not math.isfinite(choice.threshold):
                raise UserError(
                    f"--threshold={choice.threshold} is no price of a timestep: give a number, 0 "
                    "for the policy's own choice"
                )
        elif exit != "patience":
            exits.check_threshold(choice.threshold)
        elif choice.threshold not in range(1, timesteps + 1):
            raise UserError(
                f"--threshold={choice.threshold} is no patience: give the number of equal answers "
                f"in a row, from 1 to T = {timesteps}"
            )
    if choice.risk is not None and exit in ("patience", "policy"):
        raise UserError(
            f"--exit={exit} has no grid of thresholds for --risk: choose one of "
            f"{', '.join(exits.SCORES)}"
        )


def _choose(
    choice: Choice, exit: str, validation: _Replay | None, timesteps: int
) -> tuple[float | None, str, dict | None]:
    """(threshold, how it was chosen in words, guarantee)."""
    if exit == "full":
        return None, "every sample runs all timesteps", None
    if choice.threshold is not None:
        return choice.threshold, "as given", None
    where = f"chosen on the validation split ({len(validation.correct):,} images)"
    if choice.risk is not None:
        found = calibration.threshold_with_guarantee(
            validation.scores,
            validation.predictions,
            choice.risk,
            choice.delta,
            choice.loss,
            labels=validation.labels,
        )
        what = "certified" if found.certified else "none below 1 could be certified, so all T run"
        rule = (
            f"{where}: {found.loss} risk at most eps = {found.eps:g} with probability "
            f"{1 - found.delta:g} (Learn-then-Test): {what}"
        )
        return found.threshold, rule, found._asdict()
    if choice.target_timesteps is not None:
        threshold = calibration.threshold_for_timesteps(validation.scores, choice.target_timesteps)
        rule = f"{where}: at most {choice.target_timesteps:g} timesteps on average there"
    else:
        threshold = calibration.threshold_for_accuracy(
            validation.scores, validation.correct, choice.tolerance
        )
        rule = (
            f"{where}: the fewest timesteps on average within {100 * choice.tolerance:g} point of "
            f"its accuracy at T = {timesteps}"
        )
    # A patience of k exits where the streak exceeds k - 1.
    return (threshold + 1 if exit == "patience" else threshold), rule, None


def _exit_above(exit: str, threshold: float) -> float:
    return threshold - 1 if exit == "patience" else threshold


class _Chooser(NamedTuple):
    """A policy network, ready to choose."""

    network: Network
    macs: int  # of one image
    candidates: tuple[int, ...]
    logits_of: Callable[[np.ndarray], np.ndarray]  # images [N, H, W, C] -> [N, candidates]


def _load_chooser(
    workdir: Path,
    config: ConfigDict,
    facts: run.DataFacts,
    transform: Callable,
    batch_size: int,
) -> _Chooser:
    """The policy of a run."""
    model = load_policy(workdir, config, facts)
    network = inference_network(model, facts.image_shape, 1)
    logits_of = _over_images(network.logits, network.params, transform, batch_size)
    candidates = tuple(config.policy.candidates)
    return _Chooser(
        network,
        _dense_macs(model, facts),
        candidates,
        lambda images: np.asarray(
            policy.split_outputs(logits_of(images)[:, 0], len(candidates))[0]
        ),
    )


def _dense_macs(model: nnx.Module, facts: run.DataFacts) -> int:
    """Multiply-accumulates of one image and timestep."""
    model = nnx.view(model, use_running_average=True)
    return sum(layer.macs for layer in layers(model, facts.image_shape))


def _check_policy(workdir: Path, config: ConfigDict, timesteps: int) -> None:
    if not is_policy(config):
        raise UserError(
            f"--exit=policy needs a run with a policy, and {workdir} has none: train one with "
            "python train.py --config=configs/digits_policy.py or its like, or choose another exit"
        )
    if timesteps < config.policy.candidates[-1]:
        raise UserError(
            f"--timesteps is {timesteps} and the policy may choose up to "
            f"{config.policy.candidates[-1]}: give at least that"
        )


def _choose_price(choice: Choice, chooser: _Chooser, validation: Split) -> tuple[float, str]:
    """(price of a timestep, how it was chosen in words)."""
    if choice.threshold is not None:
        return choice.threshold, "as given"
    if choice.target_timesteps is None:
        return 0.0, "the most probable candidate of the policy"
    chosen = chooser.logits_of(validation.images)
    price = policy.price_for_timesteps(chosen, chooser.candidates, choice.target_timesteps)
    return price, (
        f"chosen on the validation split ({len(chosen):,} images): at most "
        f"{choice.target_timesteps:g} timesteps on average there"
    )


def _sweep_prices(
    chosen: np.ndarray, candidates: tuple[int, ...], correct: np.ndarray
) -> list[dict[str, float]]:
    """Accuracy and average timesteps over prices, from the policy's logits [N, C]."""
    return [
        {"threshold": float(p), "accuracy": float(a), "average_timesteps": float(m)}
        for p, a, m in zip(*policy.sweep(chosen, candidates, correct, SWEEP), strict=True)
    ]


def _report_policy(
    chooser: _Chooser,
    network_macs: int,
    config: ConfigDict,
    times: np.ndarray,
    beside: "_Replay",
) -> dict:
    """What the policy costs, and SEENN-I on the same samples at as many timesteps on average.

    That threshold is the one that gives this average on the very samples that are reported, which
    takes no label.
    """
    threshold = calibration.threshold_for_timesteps(beside.scores, float(np.mean(times)))
    other = np.asarray(exits.exit_times(beside.scores, threshold))
    return {
        "candidates": list(chooser.candidates),
        "beta": config.policy.beta,
        "macs": chooser.macs,
        "network_macs": network_macs,  # of one timestep
        "collapsed_to": int(times[0]) if np.all(times == times[0]) else None,
        "confidence": {
            "threshold": threshold,
            "accuracy": float(np.mean(exits.at_exit(beside.correct, other))),
            "average_timesteps": float(np.mean(other)),
            "sweep": _sweep(beside, "confidence"),
        },
    }


def _make_criterion(
    exit: str,
    threshold: float | None,
    chooser: _Chooser | None,
    transform: Callable,
    batch_size: int,
) -> Callable[[Any, jax.Array], engine.Criterion]:
    """`(parameters of the policy, images) -> criterion` of these images; traced with the run."""
    if exit == "full":
        return lambda params, images: engine.never()
    if exit == "patience":
        return lambda params, images: engine.patience(int(threshold))
    if exit != "policy":
        # Rounded as `exits.exit_times` rounds it.
        rounded = float(np.float32(threshold))
        return lambda params, images: engine.above(exits.SCORES[exit], rounded)

    def by_policy(params, images):
        logits = engine.full_logits(
            lambda x: chooser.network.logits(params, transform(x)), images, batch_size
        )
        logits, _ = policy.split_outputs(logits[:, 0], len(chooser.candidates))
        return engine.prescribed(policy.exit_times(logits, chooser.candidates, threshold))

    return by_policy


def _over_images(
    function: Callable[[Any, jax.Array], Any], params: Any, transform: Callable, batch_size: int
) -> Callable[[np.ndarray], Any]:
    """`images [N, H, W, C] -> function(params, normalised images)`, on all devices."""

    def share(params, images, count):
        return engine.in_batches(lambda x: function(params, transform(x)), images, batch_size)

    compiled = jax.jit(engine.over_devices(share))
    params = devices.replicate(params)

    def over_images(images):
        parts = engine.in_chunks(functools.partial(compiled, params), engine.chunks(images))
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    return over_images


def _run_exits(
    network: Network,
    transform: Callable,
    images: Any,
    make_criterion: Callable[[Any, jax.Array], engine.Criterion],
    chooser_params: Any,
    scale: Any,
    timesteps: int,
    batch_size: int,
    method: str,
) -> tuple[engine.Exited, float]:
    """(what exits leave, seconds it took once compiled), on all devices."""

    def share(params, images, count):
        params, chooser_params = params
        return engine.run_network(
            method,
            network,
            params,
            images,
            make_criterion(chooser_params, images),
            timesteps,
            batch_size,
            transform=transform,
            count=count,
            scale=scale,
        )

    first = next(engine.chunks(images))
    params = devices.replicate((network.params, chooser_params))
    compiled = functools.partial(jax.jit(engine.over_devices(share)), params)
    jax.block_until_ready(compiled(first, np.int32(len(first))))
    started = time.perf_counter()
    parts = list(engine.in_chunks(compiled, engine.chunks(images)))
    seconds = time.perf_counter() - started
    return jax.tree.map(lambda *x: np.concatenate(x), *parts), seconds


def _sweep(replayed: _Replay, exit: str) -> list[dict[str, float]]:
    """Accuracy and average timesteps over thresholds spread evenly over the scores that decide."""
    scores = replayed.scores
    if exit == "patience":
        grid = np.arange(scores.shape[1])
    else:
        inner = (
            np.quantile(scores[:, :-1], np.linspace(0, 1, SWEEP - 2)) if scores.shape[1] > 1 else []
        )
        grid = np.unique(np.concatenate([[0.0], inner, [1.0]]).astype(scores.dtype))
    accuracy, average = exits.sweep(scores, replayed.correct, grid)
    shown = grid + 1 if exit == "patience" else grid
    return [
        {"threshold": float(t), "accuracy": float(a), "average_timesteps": float(m)}
        for t, a, m in zip(shown, accuracy, average, strict=True)
    ]
