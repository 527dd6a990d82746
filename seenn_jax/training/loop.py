"""The training loop: data on the device, many steps in one call, validation, checkpoints, logs."""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from seenn_jax import devices, run
from seenn_jax.config import check_config, is_ann, training_timesteps
from seenn_jax.data import Batches, Dataset, Split, Stream, normalize
from seenn_jax.engine import chunks, full_logits, in_chunks, over_devices
from seenn_jax.errors import UserError
from seenn_jax.exits import accumulate, static_accuracy
from seenn_jax.models import inference_network
from seenn_jax.training import checkpoints
from seenn_jax.training.logs import ScalarLog, progress_bar
from seenn_jax.training.state import (
    Given,
    TrainState,
    evaluated,
    initial_state,
    jitted_steps,
    learning_rate,
    make_optimizer,
    train_step,
)
from seenn_jax.training.teacher import open_teacher

# Steps in one call at most. XLA's CPU backend runs a convolution inside a loop on fewer threads.
STEPS_PER_CALL = {"cpu": 1}
DEFAULT_STEPS_PER_CALL = 50


class Validation(NamedTuple):
    """What a validation found."""

    score: float  # the best checkpoint has the largest; NaN where a logit is
    scalars: dict[str, float]
    text: str


def _nothing() -> None:
    pass


class Task(NamedTuple):
    """What `run_task` trains.

    Attributes:
      train: `(state, epoch) -> (state, metrics, number of steps taken)`; metrics are means over
        these steps, among them loss, accuracy and gradient_norm.
      validate: `state -> Validation`.
      learning_rate: by step.
      scalars: `epoch -> scalars` to log with it.
      work: of each epoch, in images times timesteps, for the progress bar.
      close: called when training ends, in whatever way.
    """

    train: Callable[[Any, int], tuple[Any, dict, int]]
    validate: Callable[[Any], Validation]
    learning_rate: optax.Schedule
    scalars: Callable[[int], dict[str, float]]
    work: list[int]
    close: Callable[[], None] = _nothing


def train(config: ConfigDict, workdir: Path, console: Console) -> None:
    """Train the network of `config` in `workdir`, from its latest checkpoint if it has one.

    Raises:
      UserError: a config that can't be, data that are not there, a workdir of another config, a
        checkpoint of another architecture, a loss that is not finite.
    """
    check_config(config)
    started = time.perf_counter()
    dataset = open_data(config)
    facts = run.DataFacts.of(dataset)
    teacher = open_teacher(config, facts)
    model = run.build(config, facts)
    run.claim(workdir, config, facts, teacher=teacher and teacher.about)
    optimizer = make_optimizer(config, total_steps(config, dataset))
    graph, state = initial_state(model, optimizer, config.ema)

    def make_task(state: TrainState) -> tuple[TrainState, Task]:
        step_function = functools.partial(
            train_step,
            graph=graph,
            optimizer=optimizer,
            config=config,
            normalization=facts.normalization,
            num_classes=facts.num_classes,
            teach=teacher and teacher.logits,
        )
        given = Given(np.uint32(config.seed), teacher and teacher.params)
        close = _nothing
        if isinstance(dataset.train, Stream):
            batches = host_batches(state, dataset.train, config)
            compiled, close = streamed_steps(state, given, batches, console), batches.close
        else:
            compiled = compiled_steps(state, given, dataset.train, config, console)
        epochs = [timesteps_of_epoch(config, epoch) for epoch in range(config.epochs)]

        @functools.cache
        def steps(timesteps):
            step = functools.partial(step_function, timesteps=timesteps)
            return compiled(step, f"{timesteps} timestep(s)")

        images = dataset.train.size // config.batch_size * config.batch_size
        return state, Task(
            train=lambda state, epoch: steps(epochs[epoch])(state),
            validate=_make_validate(graph, facts, config, dataset.validation),
            learning_rate=learning_rate(config, total_steps(config, dataset)),
            scalars=lambda epoch: {"train/timesteps": epochs[epoch]},
            work=[images * timesteps for timesteps in epochs],
            close=close,
        )

    what = (
        f"{config.model.name} (width {config.model.width}) on {config.data.name}: "
        f"{dataset.train.size:,} images, {dataset.validation.size:,} held out "
        f"for validation, {config.epochs} epochs, T = {training_timesteps(config)}"
    )
    run_task(config, workdir, console, what, dataset, state, make_task, started)


def open_data(config: ConfigDict) -> Dataset:
    """The data of a config.

    Raises:
      UserError: they are not there, fewer than a batch, or event data for an ANN; the devices
        can't share a batch.
    """
    devices.check_batch(config.batch_size, config.accumulate)
    dataset = run.load_data(config)
    if isinstance(dataset.train, Split) and dataset.train.images.ndim == 5:
        _check_for_events(config)
    if config.batch_size > dataset.train.size:
        raise UserError(
            f"config.batch_size is {config.batch_size} and {config.data.name} has only "
            f"{dataset.train.size} training images: set --config.batch_size to at most that"
        )
    return dataset


def _check_for_events(config: ConfigDict) -> None:
    if is_ann(config):
        raise UserError(
            f"config.activation={config.activation} trains an ordinary network of still images, "
            f"and {config.data.name} is event data: set --config.activation=lif"
        )
    if config.augment.autoaugment:
        raise UserError(
            f"config.augment.autoaugment is for colour images, and {config.data.name} is event "
            "data: set it to false; roll and rotate are for event data too"
        )


def total_steps(config: ConfigDict, dataset: Dataset) -> int:
    """Steps of all epochs."""
    return dataset.train.size // config.batch_size * config.epochs


def run_task(
    config: ConfigDict,
    workdir: Path,
    console: Console,
    what: str,
    dataset: Dataset,
    state: Any,
    make_task: Callable[[Any], tuple[Any, Task]],
    started: float,
) -> None:
    """Run the epochs of a task in `workdir`, from its latest checkpoint if it has one.

    Args:
      config, workdir, console: as for `train`.
      what: is trained, in words.
      dataset: that of `open_data`.
      state: the initial one, which has a `step`.
      make_task: `state to start from -> (state, task)`, called if there is anything to do.
      started: `time.perf_counter()` at the beginning, reading the data included.
    """
    steps_per_epoch = total_steps(config, dataset) // config.epochs
    with checkpoints.open_checkpoints(workdir) as manager:
        latest = max(checkpoints.whole_steps(manager), default=None)
        if latest is not None and latest >= total_steps(config, dataset):
            console.print(f"{workdir} is trained: all {config.epochs} epochs are done.")
            return
        if latest is not None:
            state = checkpoints.restore(manager, latest, state)
            epochs, steps = divmod(latest, steps_per_epoch)
            within = f" and {steps} of {steps_per_epoch} steps" if steps else ""
            console.print(f"Continuing {workdir} after epoch {epochs}{within}.")
        step = int(state.step)
        console.print(f"Training {what}, in {workdir}.")
        state, task = make_task(devices.replicate(state))
        # Of several processes the first logs.
        first = jax.process_index() == 0
        with (
            contextlib.closing(task),
            ScalarLog(workdir, step) if first else contextlib.nullcontext() as log,
            progress_bar(console) as bar,
        ):
            _loop(state, config, task, steps_per_epoch, manager, log, bar)
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    console.print(f"Trained in {minutes} min {seconds} s; the run is in {workdir}.")


def timesteps_of_epoch(config: ConfigDict, epoch: int) -> int:
    """T, or 1 in the first `config.inherit_epochs` epochs and of an ordinary network."""
    return 1 if epoch < config.inherit_epochs else training_timesteps(config)


def steps_per_call(steps_per_epoch: int, most: int) -> int:
    """The largest divisor of an epoch that is at most `most`: one compiled call serves all."""
    return max(n for n in range(1, most + 1) if steps_per_epoch % n == 0)


def compiled_steps(
    state: Any, given: Given, data: Any, config: ConfigDict, console: Console
) -> Callable[[Callable, str], Callable[[Any], tuple[Any, dict, int]]]:
    """`(step function of a batch of data, its name) -> call`, with `call(state)` as in `Task`.

    All devices have the data, a few hundred megabytes at most, and divide each batch among them.
    """
    data, step = devices.replicate((given, *data)), int(state.step)
    state = jax.eval_shape(lambda state: state, state)  # its buffers will be donated
    most = STEPS_PER_CALL.get(jax.default_backend(), DEFAULT_STEPS_PER_CALL)
    # A run that resumes within an epoch must come to its end.
    steps_per_epoch = len(data[1]) // config.batch_size
    steps = steps_per_call(math.gcd(steps_per_epoch, step), most)

    def compiled(step_function, name):
        jitted = jitted_steps(step_function, steps=steps, batch_size=config.batch_size)
        program = _compile(jitted, state, data, name, console)
        return lambda state: (*program(state, *data), steps)

    return compiled


def _compile(
    jitted: jax.stages.Wrapped, state: Any, data: tuple[Any, ...], name: str, console: Console
) -> Callable[..., tuple[Any, dict]]:
    """`(state, *data) -> (state, metrics)`."""
    console.print(
        f"Compiling the training step for {name}; this takes up to two "
        "minutes the first time and seconds from the cache afterwards."
    )
    started = time.perf_counter()
    program = jitted.lower(state, *data).compile()
    console.print(f"Compiled in {time.perf_counter() - started:.0f} s.")
    return program


def host_batches(state: Any, stream: Stream, config: ConfigDict) -> Batches:
    """The batches from a state to the end, from the host, so that a resumed run sees the same."""
    return Batches(
        stream,
        config.batch_size,
        seed=config.seed,
        start=int(state.step),
        stop=stream.size // config.batch_size * config.epochs,
        workers=config.data.workers,
        process=(jax.process_index(), jax.process_count()),
    )


def streamed_steps(
    state: Any, given: Given, batches: Batches, console: Console
) -> Callable[[Callable, str], Callable[[Any], tuple[Any, dict, int]]]:
    """As `compiled_steps`, with a step a call and its batch from the host.

    The next batch goes to the devices while a step runs.
    """
    state, given = jax.eval_shape(lambda state: state, state), devices.replicate(given)
    ahead = []

    def fetch():
        return devices.divide(next(batches))

    def compiled(step_function, name):
        if not ahead:
            ahead.append(fetch())
        copied = devices.everywhere()
        shardings = (copied, copied, *(x.sharding for x in ahead[0]))
        jitted = jax.jit(
            step_function, donate_argnums=0, in_shardings=shardings, out_shardings=copied
        )
        program = _compile(jitted, state, (given, *ahead[0]), name, console)

        def call(state):
            state, metrics = program(state, given, *ahead.pop())
            with contextlib.suppress(StopIteration):  # after the last step
                ahead.append(fetch())
            return state, metrics, 1

        return call

    return compiled


def _make_validate(
    graph: nnx.GraphDef, facts: run.DataFacts, config: ConfigDict, split: Split | Stream
) -> Callable[[TrainState], Validation]:
    """The accuracy on the validation split at each t, of the summed logits."""
    mean, std = facts.normalization
    timesteps = training_timesteps(config)
    batch_size = min(512, split.size)

    @jax.jit
    def predict(params, stats, images):
        model = nnx.merge(graph, params, stats)
        network = inference_network(model, facts.image_shape, timesteps)

        def share(params, images, count):
            return full_logits(
                lambda x: network.logits(params, normalize(x, mean, std, config.model.dtype)),
                images,
                batch_size,
            )

        return over_devices(share)(network.params, images)

    def validate(state):
        params, stats = evaluated(state)
        parts = in_chunks(lambda x, count: predict(params, stats, x), chunks(split.images))
        logits = np.concatenate(list(parts))
        if not np.isfinite(logits).all():
            return Validation(math.nan, {}, "")
        predictions = np.asarray(accumulate(logits).argmax(-1))
        accuracy = np.asarray(static_accuracy(predictions == split.labels[:, None])).tolist()
        ends = {1: accuracy[0], timesteps: accuracy[-1]}
        scalars = {f"validation/accuracy_{t}": a for t, a in enumerate(accuracy, start=1)}
        text = ", ".join(f"{a:.2%} at t = {t}" for t, a in ends.items())
        return Validation(accuracy[-1], scalars, text)

    return validate


def _loop(
    state: Any,
    config: ConfigDict,
    task: Task,
    steps_per_epoch: int,
    manager,
    log: ScalarLog | None,
    bar,
) -> None:
    images_per_epoch = steps_per_epoch * config.batch_size
    work = task.work
    step = int(state.step)
    start = step // steps_per_epoch
    shown = bar.add_task("", total=sum(work), completed=sum(work[:start]), status="")

    for epoch in range(start, config.epochs):
        started, timed, metrics, pending = time.perf_counter(), 0, [], None
        end = (epoch + 1) * steps_per_epoch
        # Of a run that resumes in the middle of an epoch; its means are those of the rest.
        before = (step - epoch * steps_per_epoch) * config.batch_size
        while step < end:
            state, measured, taken = task.train(state, epoch)
            step += taken
            # Read the metrics of one call behind, so that the device never waits for the host.
            if pending is not None:
                metrics.append(_read_metrics(pending, config, step))
                done = len(metrics) * taken * config.batch_size
                rate = (done - timed) / (time.perf_counter() - started)
                if not timed:
                    # The first call of an epoch may have waited for the compiler.
                    started, timed = time.perf_counter(), done
                last = metrics[-1]
                bar.update(
                    shown,
                    description=f"epoch {epoch + 1}/{config.epochs}",
                    completed=sum(work[:epoch]) + work[epoch] * (before + done) / images_per_epoch,
                    status=f"loss {last['loss']:.3f}  accuracy {last['accuracy']:.1%}  "
                    f"{rate:,.0f} images/s",
                )
            pending = measured
            every = config.checkpoint_every
            if every and step < end and step // every > (step - taken) // every:
                metrics.append(_read_metrics(pending, config, step))  # What is saved is finite.
                pending = None
                checkpoints.save(manager, step, state, -math.inf)
        metrics.append(_read_metrics(pending, config, step))
        rate = (images_per_epoch - before - timed) / (time.perf_counter() - started)
        mean = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        scalars = {f"train/{name}": value for name, value in mean.items()}
        scalars |= task.scalars(epoch)
        scalars |= {
            "epoch": epoch + 1,
            "train/learning_rate": float(task.learning_rate(step - 1)),
            "train/images_per_second": rate,
        }
        found = None
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            found = task.validate(state)
            _check_finite("a logit on the validation split", found.score, config, step)
            scalars |= found.scalars
        # Before the checkpoint: a resumed run drops what was logged after its checkpoint, and what
        # a killed one has not logged before it never comes again.
        if log is not None:
            log.write(step, scalars)
        if found is not None:
            checkpoints.save(manager, step, state, found.score)
            bar.console.print(
                f"epoch {epoch + 1:3}/{config.epochs}  loss {mean['loss']:.4f}  "
                f"train {mean['accuracy']:.2%}  validation {found.text}  {rate:,.0f} images/s",
                highlight=False,
            )
        bar.update(shown, completed=sum(work[: epoch + 1]))


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
