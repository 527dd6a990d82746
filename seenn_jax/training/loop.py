"""The training loop: data on the device, many steps in one call, validation, checkpoints, logs."""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from seenn_jax import run
from seenn_jax.config import check_config, training_timesteps
from seenn_jax.data import Split, load_dataset, normalize
from seenn_jax.engine import full_logits
from seenn_jax.errors import UserError
from seenn_jax.exits import accumulate, static_accuracy
from seenn_jax.models import inference_network
from seenn_jax.training import checkpoints
from seenn_jax.training.logs import ScalarLog, progress_bar
from seenn_jax.training.state import (
    TrainState,
    evaluated,
    initial_state,
    learning_rate,
    make_optimizer,
    train_step,
    train_steps,
)

# Steps in one call at most. XLA's CPU backend runs a convolution inside a loop on fewer threads.
STEPS_PER_CALL = {"cpu": 1}
DEFAULT_STEPS_PER_CALL = 50


def train(config: ConfigDict, workdir: Path, console: Console) -> None:
    """Train the network of `config` in `workdir`, from its latest checkpoint if it has one.

    Raises:
      UserError: a config that can't be, data that are not there, a workdir of another config, a
        checkpoint of another architecture, a loss that is not finite.
    """
    check_config(config)
    started = time.perf_counter()
    dataset = load_dataset(
        config.data.name, data_dir=config.data.dir or None, validation=config.data.validation
    )
    if config.batch_size > len(dataset.train.labels):
        raise UserError(
            f"config.batch_size is {config.batch_size} and {config.data.name} has only "
            f"{len(dataset.train.labels)} training images: set --config.batch_size to at most that"
        )
    facts = run.DataFacts.of(dataset)
    model = run.build(config, facts)
    run.claim(workdir, config, facts)

    steps_per_epoch = len(dataset.train.labels) // config.batch_size
    total_steps = steps_per_epoch * config.epochs
    optimizer = make_optimizer(config, total_steps)
    graph, state = initial_state(model, optimizer, config.ema)
    with checkpoints.open_checkpoints(workdir) as manager:
        latest = max(checkpoints.whole_steps(manager), default=None)
        if latest is not None and latest >= total_steps:
            console.print(f"{workdir} is trained: all {config.epochs} epochs are done.")
            return
        if latest is not None:
            state = checkpoints.restore(manager, latest, state)
            console.print(f"Continuing {workdir} after epoch {latest // steps_per_epoch}.")
        step = int(state.step)
        console.print(
            f"Training {config.model.name} (width {config.model.width}) on {config.data.name}: "
            f"{len(dataset.train.labels):,} images, {len(dataset.validation.labels):,} held out "
            f"for validation, {config.epochs} epochs, T = {training_timesteps(config)}, in {workdir}."
        )
        validate = _make_validate(graph, facts, config, dataset.validation)
        train_call = _make_train_call(
            graph, state, optimizer, facts, config, dataset.train, console
        )
        with ScalarLog(workdir, step) as log, progress_bar(console) as bar:
            _loop(
                state,
                config,
                steps_per_epoch=steps_per_epoch,
                train_call=train_call,
                validate=validate,
                manager=manager,
                log=log,
                bar=bar,
            )
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    console.print(f"Trained in {minutes} min {seconds} s; the run is in {workdir}.")


def timesteps_of_epoch(config: ConfigDict, epoch: int) -> int:
    """T, or 1 in the first `config.inherit_epochs` epochs and of an ordinary network."""
    return 1 if epoch < config.inherit_epochs else training_timesteps(config)


def steps_per_call(steps_per_epoch: int, most: int) -> int:
    """The largest divisor of an epoch that is at most `most`: one compiled call serves all."""
    return max(n for n in range(1, most + 1) if steps_per_epoch % n == 0)


def _make_train_call(
    graph: nnx.GraphDef,
    state: TrainState,
    optimizer: optax.GradientTransformation,
    facts: run.DataFacts,
    config: ConfigDict,
    split: Split,
    console: Console,
) -> Callable[[TrainState, int], tuple[TrainState, dict, int]]:
    """`(state, timesteps) -> (state, metrics, number of steps taken)`; compiles as is needed."""
    images, labels = jax.device_put((split.images, split.labels))
    state = jax.eval_shape(lambda: state)  # its buffers will be donated
    most = STEPS_PER_CALL.get(jax.default_backend(), DEFAULT_STEPS_PER_CALL)
    steps = steps_per_call(len(labels) // config.batch_size, most)

    @functools.cache
    def compiled(timesteps: int):
        step_function = functools.partial(
            train_step,
            graph=graph,
            optimizer=optimizer,
            config=config,
            normalization=facts.normalization,
            num_classes=facts.num_classes,
            timesteps=timesteps,
        )
        call = functools.partial(
            train_steps,
            steps=steps,
            batch_size=config.batch_size,
            seed=config.seed,
            step_function=step_function,
        )
        console.print(
            f"Compiling the training step for {timesteps} timestep(s); this takes up to two "
            "minutes the first time and seconds from the cache afterwards."
        )
        started = time.perf_counter()
        program = jax.jit(call, donate_argnums=0).lower(state, images, labels).compile()
        console.print(f"Compiled in {time.perf_counter() - started:.0f} s.")
        return program

    def train_call(state, timesteps):
        state, metrics = compiled(timesteps)(state, images, labels)
        return state, metrics, steps

    return train_call


def _make_validate(
    graph: nnx.GraphDef, facts: run.DataFacts, config: ConfigDict, split: Split
) -> Callable[[Any, Any], np.ndarray]:
    """`(params, stats) -> accuracy on the validation split at each t` of the summed logits.

    It is NaN where a logit is.
    """
    mean, std = facts.normalization
    timesteps = training_timesteps(config)
    batch_size = min(512, len(split.labels))

    @jax.jit
    def predict(params, stats, images):
        model = nnx.merge(graph, params, stats)
        network = inference_network(model, facts.image_shape, timesteps)

        def logits(images):
            return network.logits(network.params, normalize(images, mean, std, config.model.dtype))

        return full_logits(logits, images, batch_size)

    images = jax.device_put(split.images)

    def validate(params, stats):
        logits = np.asarray(predict(params, stats, images))
        if not np.isfinite(logits).all():
            return np.full(timesteps, np.nan)
        predictions = np.asarray(accumulate(logits).argmax(-1))
        return np.asarray(static_accuracy(predictions == split.labels[:, None]))

    return validate


def _loop(
    state: TrainState,
    config: ConfigDict,
    *,
    steps_per_epoch: int,
    train_call,
    validate,
    manager,
    log: ScalarLog,
    bar,
) -> None:
    schedule = learning_rate(config, steps_per_epoch * config.epochs)
    images_per_epoch = steps_per_epoch * config.batch_size
    work = [images_per_epoch * timesteps_of_epoch(config, e) for e in range(config.epochs)]
    step = int(state.step)
    start = step // steps_per_epoch
    task = bar.add_task("", total=sum(work), completed=sum(work[:start]), status="")

    for epoch in range(start, config.epochs):
        timesteps = timesteps_of_epoch(config, epoch)
        started, timed, metrics, pending = time.perf_counter(), 0, [], None
        end = (epoch + 1) * steps_per_epoch
        while step < end:
            state, measured, taken = train_call(state, timesteps)
            step += taken
            # Read the metrics of one call behind, so that the device never waits for the host.
            if pending is not None:
                metrics.append(_read_metrics(pending, config, step))
                done = len(metrics) * taken * config.batch_size
                rate = (done - timed) / (time.perf_counter() - started)
                if len(metrics) == 1:
                    # The first call of an epoch may have waited for the compiler.
                    started, timed = time.perf_counter(), done
                last = metrics[-1]
                bar.update(
                    task,
                    description=f"epoch {epoch + 1}/{config.epochs}",
                    completed=sum(work[:epoch]) + done * timesteps,
                    status=f"loss {last['loss']:.3f}  accuracy {last['accuracy']:.1%}  "
                    f"{rate:,.0f} images/s",
                )
            pending = measured
        metrics.append(_read_metrics(pending, config, step))
        rate = (images_per_epoch - timed) / (time.perf_counter() - started)
        mean = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        scalars = {f"train/{name}": value for name, value in mean.items()}
        scalars |= {
            "epoch": epoch + 1,
            "train/timesteps": timesteps,
            "train/learning_rate": float(schedule(step - 1)),
            "train/images_per_second": rate,
        }
        accuracy = None
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            accuracy = validate(*evaluated(state))
            _check_finite("a logit on the validation split", float(accuracy[-1]), config, step)
            scalars |= {
                f"validation/accuracy_{t}": float(a) for t, a in enumerate(accuracy, start=1)
            }
        # Before the checkpoint: a resumed run drops what was logged after its checkpoint, and what
        # a killed one has not logged before it never comes again.
        log.write(step, scalars)
        if accuracy is not None:
            checkpoints.save(manager, step, state, float(accuracy[-1]))
            ends = {1: accuracy[0], len(accuracy): accuracy[-1]}
            shown = ", ".join(f"{a:.2%} at t = {t}" for t, a in ends.items())
            bar.console.print(
                f"epoch {epoch + 1:3}/{config.epochs}  loss {mean['loss']:.4f}  "
                f"train {mean['accuracy']:.2%}  validation {shown}  {rate:,.0f} images/s",
                highlight=False,
            )
        bar.update(task, completed=sum(work[: epoch + 1]))


def _read_metrics(metrics: dict, config: ConfigDict, step: int) -> dict[str, float]:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    _check_finite("the loss", values["loss"], config, step)
    # Spikes can hide a NaN from the loss: NaN >= threshold is False.
    _check_finite("the norm of the gradient", values["gradient_norm"], config, step)
    return values


def _check_finite(what: str, value: float, config: ConfigDict, step: int) -> None:
    if not math.isfinite(value):
        precise = config.model.dtype != "bfloat16"
        raise UserError(
            f"{what} became {value} by step {step} and must be finite: lower "
            f"--config.optimizer.learning_rate (now {config.optimizer.learning_rate})"
            f"{'' if precise else ' or use --config.model.dtype=float32'}, in another --workdir if "
            "this one has checkpoints; they are as they were"
        )
