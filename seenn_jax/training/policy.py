"""Training SEENN-II: a policy network for a trained spiking network, then both together."""

import functools
import math
import time
from collections.abc import Callable
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, UInt8
from ml_collections import ConfigDict
from rich.console import Console

from seenn_jax import devices, run
from seenn_jax.config import check_config, is_ann, is_policy
from seenn_jax.data import Split, normalize
from seenn_jax.engine import full_logits, over_devices
from seenn_jax.errors import UserError
from seenn_jax.exits import accumulate, at_exit
from seenn_jax.models import first_ticks, inference_network, run_all
from seenn_jax.models.policy import seen
from seenn_jax.policy import (
    OBJECTIVES,
    entropy_bonus,
    exit_times,
    mean_accuracy,
    rewards,
    sample_weights,
    split_outputs,
)
from seenn_jax.training.checkpoints import load_model
from seenn_jax.training.loop import (
    Task,
    Validation,
    compiled_steps,
    open_data,
    run_task,
    total_steps,
)
from seenn_jax.training.state import (
    Given,
    augmented,
    augmented_images,
    configured_loss,
    forward,
    learning_rate,
    make_optimizer,
    sgd,
)

BATCH = 512  # images in one forward pass of the network
# What a policy's config must share with its network's.
SHARED = (
    "data.name",
    "data.validation",
    "model.name",
    "model.width",
    "model.tau",
    "model.threshold",
    "model.surrogate",
    "activation",
    "quantization_levels",
    "timesteps",
)


class PolicyState(NamedTuple):
    """Everything a resumed run needs; randomness is a function of the seed and `step`."""

    step: Int[Array, ""]
    params: Any  # of the spiking network ...
    stats: Any
    policy: tuple[Any, Any]  # ... and (params, stats) of the policy network
    opt_state: Any  # (the policy's, the network's)
    first_accuracy: Float[Array, ""]  # of the network before, on the training images, at t_1


class Answers(NamedTuple):
    """A network's on augmented copies of its training images.

    Attributes:
      correct: whether it is right at each candidate.
      classes: its softmax over the classes at t_1.
    """

    correct: Bool[Array, "N copies C"]
    classes: Float[Array, "N copies K"]


class Graphs(NamedTuple):
    """The structures of the two networks."""

    network: nnx.GraphDef
    policy: nnx.GraphDef


def train_policy(config: ConfigDict, workdir: Path, console: Console) -> None:
    """Train a policy in `workdir`, from its latest checkpoint if it has one.

    In the first epochs the spiking network is frozen: its answers at the candidates are computed
    once, on `config.policy.copies` augmented copies of the training images, by the engine.
    In the last `config.joint_epochs` both train on images augmented anew: the network on its own
    loss plus the cross-entropy at the exits that the policy chooses, in expectation.

    Raises:
      UserError: as `loop.train`; `config.init_from` is no run, or one that does not fit.
    """
    check_config(config)
    started = time.perf_counter()
    dataset = open_data(config)
    facts = run.DataFacts.of(dataset)
    # A run that is continued has the network in its own checkpoints.
    source = workdir if run.has_checkpoint(workdir) else _source(config, workdir, facts)
    source_config, source_facts = run.load(source)
    with config.unlocked():
        if source == workdir:
            config.init_from = config.init_from or source_config.init_from
        else:
            config.init_from = str(source)
    network, _ = load_model(source, source_config, source_facts)
    graphs, state, optimizers = _initial(config, facts, network, total_steps(config, dataset))
    run.claim(workdir, config, facts)
    joint_from = config.epochs - config.joint_epochs
    steps_per_epoch = total_steps(config, dataset) // config.epochs
    images = steps_per_epoch * config.batch_size

    converted = run.convert(network, config, facts, dataset) if is_ann(config) else None

    def make_task(state: PolicyState) -> tuple[PolicyState, Task]:
        split = dataset.train
        answers = _no_answers(split, config, facts)
        if int(state.step) < joint_from * steps_per_epoch:
            asked = time.perf_counter()
            model = converted or nnx.merge(graphs.network, state.params, state.stats)
            answers = network_answers(model, config, facts, split)
            first = np.mean(answers.correct[..., 0], dtype=np.float32)
            state = state._replace(first_accuracy=devices.replicate(first))
            console.print(
                f"The network is right on {first:.2%} of {config.policy.copies} augmented copies "
                f"of the training images at t = {config.policy.candidates[0]} and on "
                f"{answers.correct[..., -1].mean():.2%} at t = {config.policy.candidates[-1]} "
                f"({time.perf_counter() - asked:.1f} s)."
            )
        index = np.arange(len(split.labels), dtype=np.int32)
        given = Given(np.uint32(config.seed))
        compiled = compiled_steps(state, given, (*split, index, *answers), config, console)

        @functools.cache
        def steps(joint):
            step = functools.partial(
                joint_step if joint else frozen_step,
                graphs=graphs,
                optimizers=optimizers,
                config=config,
                facts=facts,
            )
            if not joint:
                step = functools.partial(step, steps_per_epoch=steps_per_epoch)
            return compiled(step, "policy and network" if joint else "the policy")

        return state, Task(
            train=lambda state, epoch: steps(epoch >= joint_from)(state),
            validate=_make_validate(graphs, converted, config, facts, dataset.validation),
            learning_rate=learning_rate(config, total_steps(config, dataset)),
            scalars=lambda epoch: {"train/joint": int(epoch >= joint_from)},
            work=[
                images * (config.timesteps if e >= joint_from else 1) for e in range(config.epochs)
            ],
        )

    what = (
        f"a policy over t = {', '.join(map(str, config.policy.candidates))} for the network of "
        f"{config.init_from} on {config.data.name}: {dataset.train.size:,} images, "
        f"{dataset.validation.size:,} held out for validation, {config.epochs} epochs, "
        f"the last {config.joint_epochs} of them with the network"
    )
    run_task(config, workdir, console, what, dataset, state, make_task, started)


def _source(config: ConfigDict, workdir: Path, facts: run.DataFacts) -> Path:
    """The run whose network the policy is for."""
    if not config.init_from:
        fitting = [p for p in run.runs_in(workdir.parent) if not _misfit(p, config, facts)]
        if not fitting:
            raise UserError(
                f"config.init_from is not set, and no run in {workdir.parent}/ has a network that "
                f"fits ({config.model.name} on {config.data.name}, T = {config.timesteps}): train "
                "one first, or set --config.init_from"
            )
        return fitting[-1]
    path = Path(config.init_from)
    misfit = _misfit(path, config, facts)
    if misfit:
        raise UserError(
            f"config.init_from is {path}, which does not fit: {misfit}; give a run that does, or "
            "change the policy's config to match"
        )
    return path


def _misfit(path: Path, config: ConfigDict, facts: run.DataFacts) -> str | None:
    """What keeps the network of a run from being used, or None."""
    try:
        other, seen = run.load(path)
    except UserError as error:
        return str(error)
    if is_policy(other):
        return "it is a policy's run itself"
    if not run.has_checkpoint(path):
        return "it has no checkpoint yet"
    for key in SHARED:
        theirs, ours = (functools.reduce(getitem, key.split("."), c) for c in (other, config))
        if theirs != ours:
            return f"its config.{key} is {theirs!r}, and the policy's is {ours!r}"
    if seen.num_classes != facts.num_classes:
        return f"it has {seen.num_classes} classes, and the data {facts.num_classes}"
    return None if seen == facts else "it was trained on other images of the same name"


def _initial(
    config: ConfigDict, facts: run.DataFacts, network: nnx.Module, steps: int
) -> tuple[Graphs, PolicyState, tuple]:
    """(structures, state at step 0, (optimiser of the policy, of the network or None))."""
    graph, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    # A copy: a state is donated to the step, and what is converted has these buffers too.
    params, stats = jax.tree.map(jnp.copy, (params, stats))
    policy_graph, *policy = nnx.split(run.build_policy(config, facts), nnx.Param, nnx.BatchStat)
    optimizers = (make_optimizer(config, steps), None)
    if config.joint_epochs:
        schedule = optax.cosine_decay_schedule(
            config.policy.joint_learning_rate, steps // config.epochs * config.joint_epochs
        )
        optimizers = (optimizers[0], sgd(config, schedule))
    opt_state = tuple(
        None if optimizer is None else optimizer.init(of)
        for optimizer, of in zip(optimizers, (policy[0], params), strict=True)
    )
    zero = jnp.zeros((), jnp.int32)
    state = PolicyState(zero, params, stats, tuple(policy), opt_state, jnp.float32(0))
    return Graphs(graph, policy_graph), state, optimizers


def view(
    images: UInt8[Array, "B *T H W channels"],
    index: Int[Array, "B"],
    copy: Int[Array, ""],
    key: Key[Array, ""],
    config: ConfigDict,
    facts: run.DataFacts,
) -> Float[Array, "B *T H W channels"]:
    """The augmented copy number `copy` of training images number `index`: always the same.

    `key` is that of the run's seed.
    """
    key = jax.random.fold_in(jax.random.split(key)[1], copy)

    def augmented_one(index, image):
        of_image = jax.random.fold_in(key, index)
        return augmented_images(of_image, image[None], config, facts.normalization)[0]

    return jax.vmap(augmented_one)(index, images)


def _no_answers(split: Split, config: ConfigDict, facts: run.DataFacts) -> Answers:
    """What joint epochs are given, which ask the network as it is then."""
    images = len(split.labels)
    return Answers(
        np.zeros((images, 1, len(config.policy.candidates)), bool),
        np.zeros((images, 1, facts.num_classes), np.float16),
    )


def network_answers(
    model: nnx.Module, config: ConfigDict, facts: run.DataFacts, split: Split
) -> Answers:
    """What a network says of each copy of each training image."""
    timesteps = max(config.policy.candidates)
    network = inference_network(model, facts.image_shape, timesteps)
    at = np.asarray(config.policy.candidates) - 1
    key = jax.random.key(config.seed)

    @functools.partial(jax.jit, out_shardings=devices.everywhere())
    def of_copy(params, images, labels, copy):
        def logits(params, batch):
            params, copy = params
            return network.logits(
                params, first_ticks(view(*batch, copy, key, config, facts), timesteps)
            )

        def share(params, batch, count):
            return full_logits(functools.partial(logits, params), batch, min(BATCH, len(labels)))

        index = jnp.arange(len(labels), dtype=jnp.int32)
        cumulative = accumulate(over_devices(share)((params, copy), (images, index)))
        correct = cumulative.argmax(-1)[:, at] == labels[:, None]
        return Answers(correct, jax.nn.softmax(cumulative[:, at[0]]).astype(jnp.float16))

    params, images, labels = devices.replicate((network.params, *split))
    copies = [
        of_copy(params, images, labels, jnp.int32(copy)) for copy in range(config.policy.copies)
    ]
    return jax.tree.map(lambda *of_copies: np.stack(of_copies, axis=1), *jax.device_get(copies))


def frozen_step(
    state: PolicyState,
    given: Given,
    images: UInt8[Array, "B *T H W channels"],
    labels: Int[Array, "B"],
    index: Int[Array, "B"],
    correct: Bool[Array, "B copies C"],
    classes: Float[Array, "B copies K"],
    *,
    graphs: Graphs,
    optimizers: tuple,
    config: ConfigDict,
    facts: run.DataFacts,
    steps_per_epoch: int,
) -> tuple[PolicyState, dict[str, Float[Array, ""]]]:
    """One step of the policy alone, on the copy of the images that is this epoch's.

    Args:
      correct, classes: the network's `Answers` to these images.

    Returns:
      (next state, {loss, accuracy, timesteps, gradient_norm}), accuracy and timesteps as expected
      under the policy.
    """
    copy = state.step // steps_per_epoch % correct.shape[1]
    inputs = view(images, index, copy, given.key, config, facts)
    correct, classes = correct[:, copy], classes[:, copy].astype(jnp.float32)

    def loss(policy):
        value, (chances, policy_stats) = _policy_loss(
            policy, inputs, correct, classes, state, given, graphs, config
        )
        return value, (_expected(chances, correct, config), policy_stats)

    gradient = jax.value_and_grad(loss, has_aux=True)
    (value, (metrics, policy_stats)), grads = gradient(state.policy[0])
    updates, opt_state = optimizers[0].update(grads, state.opt_state[0], state.policy[0])
    policy = optax.apply_updates(state.policy[0], updates)
    metrics |= {"loss": value, "gradient_norm": optax.tree.norm(grads)}
    return state._replace(
        step=state.step + 1,
        policy=(policy, policy_stats),
        opt_state=(opt_state, state.opt_state[1]),
    ), metrics


def joint_step(
    state: PolicyState,
    given: Given,
    images: UInt8[Array, "B *T H W channels"],
    labels: Int[Array, "B"],
    index: Int[Array, "B"],
    correct: Bool[Array, "B copies C"],
    classes: Float[Array, "B copies K"],
    *,
    graphs: Graphs,
    optimizers: tuple,
    config: ConfigDict,
    facts: run.DataFacts,
) -> tuple[PolicyState, dict[str, Float[Array, ""]]]:
    """One step of both networks on images augmented anew; returns as `frozen_step`.

    Args:
      correct, classes: not used, the network is asked anew.
    """
    key = jax.random.fold_in(given.key, state.step)
    inputs, targets = augmented(key, images, labels, config, facts.normalization, facts.num_classes)
    loss_function = configured_loss(config)
    at = np.asarray(config.policy.candidates)

    def loss(policy, params):
        logits, stats = forward(
            graphs.network, params, state.stats, inputs, config.timesteps, config.remat
        )
        cumulative = accumulate(logits)[:, at - 1]
        mean_logits = cumulative / at[:, None]
        correct = cumulative.argmax(-1) == labels[:, None]
        classes = jax.nn.softmax(jax.lax.stop_gradient(cumulative[:, 0]))
        value, (chances, policy_stats) = _policy_loss(
            policy, inputs, correct, classes, state, given, graphs, config
        )
        at_exits = optax.softmax_cross_entropy(mean_logits, targets[:, None])
        value += loss_function(logits, targets)
        value += jnp.mean(jnp.sum(jax.lax.stop_gradient(chances) * at_exits, axis=-1))
        metrics = _expected(chances, correct, config)
        return value, (metrics, policy_stats, stats)

    gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)
    both = (state.policy[0], state.params)
    (value, (metrics, policy_stats, stats)), grads = gradient(*both)
    updated = [
        optimizer.update(g, opt_state, of)
        for optimizer, g, opt_state, of in zip(
            optimizers, grads, state.opt_state, both, strict=True
        )
    ]
    policy, params = (
        optax.apply_updates(of, updates) for of, (updates, _) in zip(both, updated, strict=True)
    )
    metrics |= {"loss": value, "gradient_norm": optax.tree.norm(grads)}
    return state._replace(
        step=state.step + 1,
        params=params,
        stats=stats,
        policy=(policy, policy_stats),
        opt_state=tuple(opt_state for _, opt_state in updated),
    ), metrics


def _policy_loss(
    policy: Any,
    inputs: Float[Array, "B *T H W channels"],
    correct: Bool[Array, "B C"],
    classes: Float[Array, "B K"],
    state: PolicyState,
    given: Given,
    graphs: Graphs,
    config: ConfigDict,
) -> tuple[Float[Array, ""], tuple[Float[Array, "B C"], Any]]:
    """(the objective, (the policy's probabilities, its next statistics))."""
    model = nnx.merge(graphs.policy, policy, state.policy[1], copy=True)
    logits, own = split_outputs(run_all(model, seen(inputs), 1)[:, 0], correct.shape[1])
    # Of the step's keys a part that nothing else uses.
    key = jax.random.split(jax.random.fold_in(given.key, state.step), 3)[2]
    weights = sample_weights(correct[:, 0], state.first_accuracy)
    earned = rewards(correct, config.policy.candidates, config.policy.beta)
    value = OBJECTIVES[config.policy.objective](key, logits, earned, weights)
    value -= config.policy.entropy * entropy_bonus(logits, weights)
    if config.policy.auxiliary:
        value += config.policy.auxiliary * jnp.mean(optax.softmax_cross_entropy(own, classes))
    return value, (jax.nn.softmax(logits), nnx.state(model, nnx.BatchStat))


def _expected(
    chances: Float[Array, "B C"], correct: Bool[Array, "B C"], config: ConfigDict
) -> dict[str, Float[Array, ""]]:
    candidates = jnp.asarray(config.policy.candidates)
    return {
        "accuracy": jnp.mean(jnp.sum(chances * correct, axis=-1)),
        "timesteps": jnp.mean(jnp.sum(chances * candidates, axis=-1)),
    }


def _make_validate(
    graphs: Graphs,
    converted: nnx.Module | None,
    config: ConfigDict,
    facts: run.DataFacts,
    split: Split,
) -> Callable[[PolicyState], Validation]:
    """What the policy's argmax gives on the validation split; the score is `mean_accuracy`.

    Args:
      converted: the spiking network of an ANN; else that of the state is used.
    """
    candidates = config.policy.candidates
    images = devices.replicate(split.images)
    size = min(BATCH, len(split.labels))
    frozen = converted and inference_network(converted, facts.image_shape, config.timesteps)
    frozen_params = frozen and devices.replicate(frozen.params)

    @jax.jit
    def predict(state, frozen_params, images):
        if frozen:
            network = frozen._replace(params=frozen_params)
        else:
            model = nnx.merge(graphs.network, state.params, state.stats)
            network = inference_network(model, facts.image_shape, config.timesteps)
        policy = inference_network(nnx.merge(graphs.policy, *state.policy), facts.image_shape, 1)

        def logits_of(network, shown=lambda images: images):
            def logits(params, images):
                inputs = normalize(shown(images), *facts.normalization, dtype=config.model.dtype)
                return network.logits(params, inputs)

            def share(params, images, count):
                return full_logits(functools.partial(logits, params), images, size)

            return over_devices(share)(network.params, images)

        return logits_of(network), split_outputs(logits_of(policy, seen)[:, 0], len(candidates))[0]

    def validate(state):
        found = predict(state._replace(opt_state=None), frozen_params, images)
        logits, chosen = jax.device_get(found)
        if not (np.isfinite(logits).all() and np.isfinite(chosen).all()):
            return Validation(math.nan, {}, "")
        correct = np.asarray(accumulate(logits).argmax(-1)) == split.labels[:, None]
        times = np.asarray(exit_times(chosen, candidates))
        right = np.asarray(at_exit(correct, times))
        earned = np.where(right, 2.0 ** (1 - times), -config.policy.beta)
        accuracy, all_ticks = float(right.mean()), float(correct[:, -1].mean())
        scalars = {
            "validation/accuracy": accuracy,
            "validation/accuracy_all_timesteps": all_ticks,
            "validation/timesteps": float(times.mean()),
            "validation/reward": float(earned.mean()),
            "validation/mean_accuracy": mean_accuracy(chosen, candidates, correct),
        }
        text = f"{accuracy:.2%} at {times.mean():.3f} timesteps, {all_ticks:.2%} at all"
        if len(set(times.tolist())) == 1:
            text += f" (the policy has collapsed: t = {times[0]} for every image)"
        return Validation(scalars["validation/mean_accuracy"], scalars, text)

    return validate
