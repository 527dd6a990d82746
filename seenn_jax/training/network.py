"""Training a network: its steps, and its accuracy on the validation split."""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from seenn_jax.data import Split, Stream, normalize
from seenn_jax.devices import compiler_options
from seenn_jax.engine import chunks, in_batches, in_chunks, over_devices
from seenn_jax.engine.common import BATCH
from seenn_jax.exits import accumulate, static_accuracy
from seenn_jax.models import training_timesteps
from seenn_jax.models.network import inference_network
from seenn_jax.run import build, folder
from seenn_jax.training.checks import open_data
from seenn_jax.training.estimation import make_estimate
from seenn_jax.training.feed import compiled_steps, host_batches, streamed_steps
from seenn_jax.training.initial import start_from
from seenn_jax.training.loop import (
    Task,
    Validation,
    images_in_words,
    nothing,
    run_task,
    total_steps,
)
from seenn_jax.training.optimizer import learning_rate, make_optimizer
from seenn_jax.training.size import check_size
from seenn_jax.training.step import Given, TrainState, evaluated, initial_state, train_step
from seenn_jax.training.teacher import open_teacher


def train_network(config: ConfigDict, workdir: Path, console: Console) -> None:
    """Train the network of `config` in `workdir`, from its latest checkpoint if it has one.

    Raises:
      UserError: data or weights that are not there, a workdir of another config, a checkpoint or
        weights of another architecture, a loss that is not finite.
    """
    started = time.perf_counter()
    dataset = open_data(config)
    facts = build.facts_of(dataset, config)
    check_size(config, facts)
    teacher = open_teacher(config, facts)
    model, started_from = build.network(config, facts), None
    if not folder.has_checkpoint(workdir):  # which has all that a run needs to be continued
        model, started_from = start_from(config, model, facts, console)
    folder.claim(workdir, config, facts, teacher and teacher.about, started_from)
    _say_what_it_is_for(config, facts, console)
    optimizer = make_optimizer(config, total_steps(config, dataset))
    graph, state = initial_state(model, optimizer, config.ema)

    def make_task(state: TrainState, config: ConfigDict) -> tuple[TrainState, Task]:
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
        if isinstance(dataset.train, Stream):
            fed = host_batches(state, dataset.train, config)
            compiled, close = streamed_steps(state, given, fed, config, console), fed.close
        else:
            compiled, close = compiled_steps(state, given, dataset.train, config, console), nothing
        epochs = [timesteps_of_epoch(config, epoch) for epoch in range(config.epochs)]

        @functools.cache
        def steps(timesteps):
            step = functools.partial(step_function, timesteps=timesteps)
            return compiled(step, f"{timesteps} timestep(s)")

        images = dataset.train.size // config.batch_size * config.batch_size
        return state, Task(
            steps=lambda epoch: steps(epochs[epoch]),
            validate=_make_validate(graph, facts, config, dataset.validation),
            learning_rate=learning_rate(config, total_steps(config, dataset)),
            scalars=lambda epoch: {"train/timesteps": epochs[epoch]},
            work=[images * timesteps for timesteps in epochs],
            close=close,
            prepare=make_estimate(graph, facts, config, dataset.train),
        )

    what = (
        f"{config.model.name} (width {config.model.width}) on {config.data.name}: "
        f"{images_in_words(config, dataset)}, {config.epochs} epochs, "
        f"T = {'1 to ' * config.random_timesteps}{training_timesteps(config)}"
    )
    run_task(config, workdir, console, what, dataset, state, make_task, started)


def _say_what_it_is_for(config: ConfigDict, facts: folder.DataFacts, console: Console) -> None:
    why = build.unconvertible(config, facts)
    if why is not None:
        console.print(f"This network can teach, and can't be converted to spikes: it has {why}.")


def timesteps_of_epoch(config: ConfigDict, epoch: int) -> int:
    """T, or 1 in the first `config.inherit_epochs` epochs and of an ordinary network."""
    return 1 if epoch < config.inherit_epochs else training_timesteps(config)


def _make_validate(
    graph: nnx.GraphDef, facts: folder.DataFacts, config: ConfigDict, split: Split | Stream
) -> Callable[[TrainState], Validation]:
    """The accuracy on the validation split at each t, of the summed logits."""
    mean, std = facts.normalization
    timesteps = training_timesteps(config)
    frames = build.frames_of(config, facts, timesteps)
    batch_size = min(BATCH, split.size)

    @functools.partial(jax.jit, compiler_options=compiler_options(config.deterministic))
    def predict(params, stats, images):
        model = nnx.merge(graph, params, stats)
        network = inference_network(model, facts.image_shape, timesteps)

        def share(params, images, count):
            return in_batches(
                lambda x: network.logits(
                    params, normalize(frames(x), mean, std, config.model.dtype)
                ),
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
