"""Training SEENN-II: a policy network for a trained spiking network, then both together."""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from seenn_jax import devices
from seenn_jax.data import Dataset, Split
from seenn_jax.models import is_ann
from seenn_jax.run import build, folder
from seenn_jax.run.checkpoints import load_model, steps
from seenn_jax.training.checks import open_data
from seenn_jax.training.feed import compiled_steps
from seenn_jax.training.loop import Task, images_in_words, run_task, total_steps
from seenn_jax.training.optimizer import OPTIMIZERS, learning_rate, make_optimizer
from seenn_jax.training.policy.answers import Answers, network_answers, no_answers
from seenn_jax.training.policy.source import source
from seenn_jax.training.policy.step import Graphs, PolicyState, frozen_step, joint_step
from seenn_jax.training.policy.validation import make_validate
from seenn_jax.training.size import check_parameters
from seenn_jax.training.step import Given


def train_policy(config: ConfigDict, workdir: Path, console: Console) -> None:
    """Train a policy in `workdir`, from its latest checkpoint if it has one.

    In the first epochs the spiking network is frozen: its answers at the candidates are computed
    once, on `config.policy.copies` augmented copies of the training images, by the engine.
    In the last `config.joint_epochs` both train on images augmented anew: the network on its own
    loss plus the cross-entropy at the exits that the policy chooses, in expectation.

    Raises:
      UserError: as `train_network`; `config.init_from` is no run, or one that does not fit.
    """
    started = time.perf_counter()
    dataset = open_data(config)
    facts = folder.DataFacts.of(dataset)
    check_parameters(
        lambda: build.policy(config, facts), "config.policy.width", config.policy.width
    )
    # A run that is continued has the network in its own checkpoints.
    path = workdir if folder.has_checkpoint(workdir) else source(config, workdir, facts)
    source_config, source_facts = folder.load(path)
    with config.unlocked():
        if path == workdir:
            config.init_from = config.init_from or source_config.init_from
        else:
            config.init_from = str(path)
    latest = max(steps(workdir), default=None) if path == workdir else None
    network, _ = load_model(path, source_config, source_facts, latest)
    graphs, state, optimizers = _initial(config, facts, network, total_steps(config, dataset))
    folder.claim(workdir, config, facts)
    converted = build.convert(network, config, facts, dataset) if is_ann(config) else None

    def make_task(state, config):
        return _task(state, config, facts, dataset, graphs, optimizers, converted, console)

    what = (
        f"a policy over t = {', '.join(map(str, config.policy.candidates))} for the network of "
        f"{config.init_from} on {config.data.name}: {images_in_words(config, dataset)}, "
        f"{config.epochs} epochs, the last {config.joint_epochs} of them with the network"
    )
    run_task(config, workdir, console, what, dataset, state, make_task, started)


def _task(
    state: PolicyState,
    config: ConfigDict,
    facts: folder.DataFacts,
    dataset: Dataset,
    graphs: Graphs,
    optimizers: tuple,
    converted: nnx.Module | None,
    console: Console,
) -> tuple[PolicyState, Task]:
    """(state to start from, what is trained)."""
    joint_from = config.epochs - config.joint_epochs
    steps_per_epoch = total_steps(config, dataset) // config.epochs
    images = steps_per_epoch * config.batch_size
    split = dataset.train
    answers = no_answers(split, config, facts)
    if int(state.step) < joint_from * steps_per_epoch:
        model = converted or nnx.merge(graphs.network, state.params, state.stats)
        state, answers = _ask(state, model, config, facts, split, console)
    index = np.arange(len(split.labels), dtype=np.int32)
    given = Given(np.uint32(config.seed))
    compiled = compiled_steps(state, given, (*split, index, *answers), config, console)
    common = {"graphs": graphs, "optimizers": optimizers, "config": config, "facts": facts}

    @functools.cache
    def steps(joint):
        if joint:
            return compiled(functools.partial(joint_step, **common), "policy and network")
        step = functools.partial(frozen_step, **common, steps_per_epoch=steps_per_epoch)
        return compiled(step, "the policy")

    return state, Task(
        steps=lambda epoch: steps(epoch >= joint_from),
        validate=make_validate(graphs, converted, config, facts, dataset.validation),
        learning_rate=learning_rate(config, total_steps(config, dataset)),
        scalars=lambda epoch: {"train/joint": int(epoch >= joint_from)},
        work=[images * (config.timesteps if e >= joint_from else 1) for e in range(config.epochs)],
    )


def _ask(
    state: PolicyState,
    model: nnx.Module,
    config: ConfigDict,
    facts: folder.DataFacts,
    split: Split,
    console: Console,
) -> tuple[PolicyState, Answers]:
    """(state with the network's accuracy at the first candidate, its answers)."""
    asked = time.perf_counter()
    answers = network_answers(model, config, facts, split)
    first = np.mean(answers.correct[..., 0], dtype=np.float32)
    console.print(
        f"The network is right on {first:.2%} of {config.policy.copies} augmented copies "
        f"of the training images at t = {config.policy.candidates[0]} and on "
        f"{answers.correct[..., -1].mean():.2%} at t = {config.policy.candidates[-1]} "
        f"({time.perf_counter() - asked:.1f} s)."
    )
    return state._replace(first_accuracy=devices.replicate(first)), answers


def _initial(
    config: ConfigDict, facts: folder.DataFacts, network: nnx.Module, steps: int
) -> tuple[Graphs, PolicyState, tuple]:
    """(structures, state at step 0, (optimiser of the policy, of the network or None))."""
    graph, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    # A copy: a state is donated to the step, and what is converted has these buffers too.
    params, stats = jax.tree.map(jnp.copy, (params, stats))
    policy_graph, *policy = nnx.split(build.policy(config, facts), nnx.Param, nnx.BatchStat)
    optimizers = (make_optimizer(config, steps), None)
    if config.joint_epochs:
        schedule = optax.cosine_decay_schedule(
            config.policy.joint_learning_rate, steps // config.epochs * config.joint_epochs
        )
        optimizers = (optimizers[0], OPTIMIZERS[config.optimizer.name](config, schedule))
    opt_state = tuple(
        None if optimizer is None else optimizer.init(of)
        for optimizer, of in zip(optimizers, (policy[0], params), strict=True)
    )
    zero = jnp.zeros((), jnp.int32)
    state = PolicyState(zero, params, stats, tuple(policy), opt_state, jnp.float32(0))
    return Graphs(graph, policy_graph), state, optimizers
