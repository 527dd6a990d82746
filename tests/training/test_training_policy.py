"""Training a policy: what it learns from, what it leaves alone, and runs that do not fit."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax import run
from seenn_jax.data import load_dataset, normalize
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluator import evaluate
from seenn_jax.exits import accumulate
from seenn_jax.models import run_all
from seenn_jax.policy import exit_times, split_outputs
from seenn_jax.training import checkpoints, policy
from seenn_jax.training.state import Given, augmented

EPOCH = (1437 - 150) // 64  # steps


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits", validation=150)


@pytest.fixture(scope="module")
def made(trained, make_policy_config, dataset, compilation_cache):
    """(graphs, state, optimizers, config, facts) at step 0."""
    config, facts = make_policy_config(init_from=str(trained)), run.DataFacts.of(dataset)
    network, _ = checkpoints.load_model(trained, *run.load(trained))
    graphs, state, optimizers = policy._initial(config, facts, network, 3 * EPOCH)
    return graphs, state, optimizers, config, facts


def metrics_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir, step=None):
    """Arrays by name of a checkpoint, the latest by default."""
    with checkpoints.open_checkpoints(workdir, read_only=True) as manager:
        step = manager.latest_step() if step is None else step
        template = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in manager.item_metadata(step).items()
        }
        return checkpoints.restore(manager, step, template)


# --- What it learns from -----------------------------------------------------------------------


def test_a_copy_is_the_same_image_whatever_the_batch(made, dataset):
    *_, config, facts = made
    images = jnp.asarray(dataset.train.images[:40])
    index = jnp.arange(40)

    def view(images, index, copy):
        key = jax.random.key(config.seed)
        return policy.view(images, index, jnp.int32(copy), key, config, facts)

    whole = view(images, index, 1)
    some = jnp.array([31, 7, 12])
    np.testing.assert_array_equal(view(images[some], index[some], 1), whole[some])
    assert not np.array_equal(view(images, index, 0), whole)
    # Two images that are the same pixels are augmented each in its own way.
    same = view(images[:1].repeat(8, 0), index[:8], 0)
    assert len({np.asarray(image).tobytes() for image in same}) > 1


def test_answers_are_those_of_the_network_on_each_copy(made, dataset, trained):
    graphs, state, _, config, facts = made
    split = dataset.train._replace(
        images=dataset.train.images[:100], labels=dataset.train.labels[:100]
    )
    frozen = nnx.merge(graphs.network, state.params, state.stats)
    correct, classes = policy.network_answers(frozen, config, facts, split)
    assert correct.shape == (100, 2, 2)  # copies, candidates
    assert classes.shape == (100, 2, 10)
    model, _ = checkpoints.load_model(trained, *run.load(trained))
    model = nnx.view(model, use_running_average=True)
    for copy in range(2):
        key = jax.random.key(config.seed)
        images, index = jnp.asarray(split.images), jnp.arange(100)
        inputs = policy.view(images, index, jnp.int32(copy), key, config, facts)
        cumulative = accumulate(run_all(model, inputs, 3))
        expected = np.asarray(cumulative.argmax(-1)) == split.labels[:, None]
        # Two programs: the order of their sums may turn a spike.
        assert (correct[:, copy] == expected[:, [0, 2]]).mean() > 0.99
        differ = np.abs(classes[:, copy] - jax.nn.softmax(cumulative[:, 0])).max(-1)
        assert (differ < 1e-3).mean() > 0.95
    assert 0.2 < correct.mean() < 1
    assert not np.array_equal(correct[:, 0], correct[:, 1])


def policy_loss_by_hand(outputs, c, classes):
    """(loss, probabilities) of a policy over t = 1, 3; the network was right on 0.8 at t = 1."""
    outputs = np.asarray(outputs)
    base, gain, own = outputs[:, :2], outputs[:, 2:4], np.asarray(jax.nn.softmax(outputs[:, 4:]))
    v = np.asarray(jax.nn.softmax(base - gain * np.sum(own * np.log(own), 1, keepdims=True)))
    beside = -(classes * np.log(own)).sum(1)
    weights = np.where(c[:, 0], 1, 4)
    terms = 0.5 * ~c - np.array([1, 0.25]) * c
    return np.mean(weights * (v * terms).sum(1)) + 0.25 * beside.mean(), v


def test_one_step_of_the_policy_by_hand(made, dataset):
    graphs, state, optimizers, config, facts = made
    images, labels = (jnp.asarray(x[:8]) for x in dataset.train)
    index = jnp.arange(8)
    rng = np.random.default_rng(0)
    correct = jnp.asarray(rng.random((8, 2, 2)) < 0.6)
    classes = rng.dirichlet(np.ones(10), (8, 2)).astype(np.float16)
    state = state._replace(first_accuracy=jnp.float32(0.8), step=jnp.int32(EPOCH + 3))
    after, metrics = policy.frozen_step(
        state,
        Given(np.uint32(config.seed)),
        images,
        labels,
        index,
        correct,
        jnp.asarray(classes),
        graphs=graphs,
        optimizers=optimizers,
        config=config,
        facts=facts,
        steps_per_epoch=EPOCH,
    )
    # In the second epoch it is shown the second copy.
    inputs = policy.view(images, index, jnp.int32(1), jax.random.key(config.seed), config, facts)
    model = nnx.merge(graphs.policy, *state.policy, copy=True)
    c = np.asarray(correct[:, 1])
    expected, v = policy_loss_by_hand(run_all(model, inputs, 1)[:, 0], c, classes[:, 1])
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx((v * c).sum(1).mean(), rel=1e-5)
    assert float(metrics["timesteps"]) == pytest.approx((v * [1, 3]).sum(1).mean(), rel=1e-5)
    # The network stays as it is, the policy does not.
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    assert not np.array_equal(
        after.policy[0]["head"]["kernel"][...], state.policy[0]["head"]["kernel"][...]
    )
    assert after.step == state.step + 1


def test_one_step_of_both_by_hand(made, dataset):
    graphs, state, optimizers, config, facts = made
    images, labels = (jnp.asarray(x[:8]) for x in dataset.train)
    state = state._replace(first_accuracy=jnp.float32(0.8), step=jnp.int32(5))
    _, metrics = policy.joint_step(
        state,
        Given(np.uint32(config.seed)),
        images,
        labels,
        jnp.arange(8),
        jnp.zeros((8, 1, 2), bool),
        jnp.zeros((8, 1, 10), jnp.float16),
        graphs=graphs,
        optimizers=optimizers,
        config=config,
        facts=facts,
    )
    key = jax.random.fold_in(jax.random.key(config.seed), 5)
    inputs, targets = augmented(key, images, labels, config, facts.normalization, 10)
    model = nnx.merge(graphs.network, state.params, state.stats, copy=True)
    o = np.asarray(run_all(model, inputs, 3))
    at_1, at_3 = o[:, 0], o.sum(1)
    c = np.stack([at_1.argmax(1) == labels, at_3.argmax(1) == labels], 1)
    chooser = nnx.merge(graphs.policy, *state.policy, copy=True)
    expected, v = policy_loss_by_hand(
        run_all(chooser, inputs, 1)[:, 0], c, np.asarray(jax.nn.softmax(at_1))
    )

    def cross_entropy(logits):
        return -(np.asarray(targets) * np.asarray(jax.nn.log_softmax(logits))).sum(1)

    tet = 0.999 * np.mean([cross_entropy(o[:, t]) for t in range(3)]) + 1e-3 * np.mean((o - 1) ** 2)
    at_exits = v[:, 0] * cross_entropy(at_1) + v[:, 1] * cross_entropy(at_3 / 3)
    assert float(metrics["loss"]) == pytest.approx(expected + tet + at_exits.mean(), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx((v * c).sum(1).mean(), rel=1e-5)


@pytest.fixture(scope="module")
def trained_longer(call_train, trained, make_policy_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "longer"
    config = make_policy_config(init_from=str(trained), epochs=5, joint_epochs=2)
    call_train(config, workdir)
    return workdir


# --- Whole runs --------------------------------------------------------------------------------


def test_the_network_is_frozen_until_the_joint_epochs(trained_policy, trained):
    with checkpoints.open_checkpoints(trained, read_only=True) as manager:
        before = saved(trained, checkpoints.best_step(manager))
    after = saved(trained_policy)
    name = "blocks.0.conv1.conv.kernel"
    assert not np.array_equal(after[f"params.{name}"], before[f"average.0.{name}"])
    metrics = metrics_of(trained_policy)
    assert [line["train/joint"] for line in metrics] == [0, 0, 1]
    # Frozen: the network at all timesteps is the same after the first two epochs.
    at_all = [line["validation/accuracy_all_timesteps"] for line in metrics]
    assert at_all[0] == at_all[1]
    for line in metrics:
        assert 1 <= line["train/timesteps"] <= 3
        assert 1 <= line["validation/timesteps"] <= 3
        assert -0.5 <= line["validation/reward"] <= 1
    assert run.load(trained_policy)[0].init_from == str(trained)


def test_the_best_checkpoint_is_of_the_policy_that_ranks_best(trained_longer):
    scores = [line["validation/mean_accuracy"] for line in metrics_of(trained_longer)]
    best = max(range(len(scores)), key=lambda epoch: (scores[epoch], epoch))
    with checkpoints.open_checkpoints(trained_longer, read_only=True) as manager:
        assert checkpoints.best_step(manager) == (best + 1) * EPOCH


# Before the joint epochs, of which there are two of five here, and among them.
@pytest.mark.parametrize("epochs", [1, 4])
def test_a_resumed_run_ends_with_the_same_bits(
    trained_longer, trained, make_policy_config, call_train, tmp_path, monkeypatch, epochs
):
    save = checkpoints.save

    def save_once(manager, step, *rest):
        if step > epochs * EPOCH:
            raise KeyboardInterrupt
        save(manager, step, *rest)

    source = shutil.copytree(trained, tmp_path / "source")
    length = {"epochs": 5, "joint_epochs": 2}
    config, workdir = make_policy_config(init_from=str(source), **length), tmp_path / "policy"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            call_train(config, workdir)
    # The network is in the run that is continued: no need for the other, or to name it again.
    shutil.rmtree(source)
    out = call_train(make_policy_config(**length), workdir)
    assert f"Continuing {workdir} after epoch {epochs}." in out
    jax.tree.map(np.testing.assert_array_equal, saved(workdir), saved(trained_longer))
    assert call_train(make_policy_config(**length), workdir) == (
        f"{workdir} is trained: all 5 epochs are done.\n"
    )


def test_a_policy_for_a_converted_network(
    make_config, make_policy_config, call_train, tmp_path, compilation_cache
):
    kind = {"activation": "qcfs", "loss": "mean_ce"}
    short = {"epochs": 1, "ema": 0.0, "inherit_epochs": 0, "validate_every": 1}
    call_train(make_config(**kind, **short), tmp_path / "ann")
    config = make_policy_config(**kind, epochs=1, joint_epochs=0)
    out = call_train(config, tmp_path / "policy")
    assert f"for the network of {tmp_path / 'ann'}" in out
    # It is that of the converted network: the same bits, and the same accuracy at all timesteps.
    jax.tree.map(
        np.testing.assert_array_equal,
        {name: x for name, x in saved(tmp_path / "policy").items() if name.startswith("params.")},
        {name: x for name, x in saved(tmp_path / "ann").items() if name.startswith("params.")},
    )
    found = evaluate(tmp_path / "policy", exit="policy", split="validation")
    converted = evaluate(tmp_path / "ann", exit="full", split="validation")
    assert found["network"] == "converted"
    assert found["static_accuracy"] == converted["static_accuracy"]
    at_all = metrics_of(tmp_path / "policy")[-1]["validation/accuracy_all_timesteps"]
    assert at_all == pytest.approx(converted["accuracy"])
    with pytest.raises(UserError, match="joint_epochs is 1: it must be 0 for a converted network"):
        call_train(make_policy_config(**kind), tmp_path / "joint")


def test_reinforce_trains_too_and_a_collapse_is_reported(
    trained, make_policy_config, call_train, tmp_path
):
    config = make_policy_config(init_from=str(trained), epochs=1, joint_epochs=0)
    config.policy.objective = "reinforce"
    config.optimizer.learning_rate = 1e-6  # the policy stays as it was drawn
    config.policy.copies = 1
    out = call_train(config, tmp_path)
    times = metrics_of(tmp_path)[-1]["validation/timesteps"]
    assert ("the policy has collapsed" in out) == (times in (1, 3))


def test_the_newest_run_that_fits_is_found(trained, make_policy_config, tmp_path, dataset):
    facts = run.DataFacts.of(dataset)
    for name in ("a", "b"):
        shutil.copytree(trained, tmp_path / name)
    (tmp_path / "b" / "checkpoints").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    found = policy._source(make_policy_config(), tmp_path / "policy", facts)
    assert found == tmp_path / "b"


# --- Mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"timesteps": 4}, r"does not fit: its config\.timesteps is 3, and the policy's is 4"),
        ({"model": {"width": 5}}, r"its config\.model\.width is 4, and the policy's is 5"),
        ({"data": {"validation": 151}}, r"its config\.data\.validation is 150"),
    ],
    ids=str,
)
def test_a_network_that_does_not_fit_is_named(
    trained, make_policy_config, call_train, tmp_path, changes, match
):
    config = make_policy_config(init_from=str(trained), **changes)
    with pytest.raises(UserError, match=match):
        call_train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_for_other_classes_is_named(copy_of_trained, make_policy_config, dataset):
    content = json.loads((copy_of_trained / "run.json").read_text())
    content["data"]["num_classes"] = 7
    (copy_of_trained / "run.json").write_text(json.dumps(content))
    config = make_policy_config(init_from=str(copy_of_trained))
    with pytest.raises(UserError, match="it has 7 classes, and the data 10"):
        policy._source(config, copy_of_trained.parent / "x", run.DataFacts.of(dataset))


def test_what_is_no_network_is_named(make_policy_config, call_train, trained_policy, tmp_path):
    for init_from, match in [
        (tmp_path / "nowhere", "nowhere holds no run"),
        (trained_policy, "it is a policy's run itself"),
        ("", r"config\.init_from is not set, and no run in .* has a network that fits"),
    ]:
        with pytest.raises(UserError, match=match):
            call_train(make_policy_config(init_from=str(init_from)), tmp_path / "a" / "run")
        assert list(tmp_path.iterdir()) == []


def test_a_policy_for_event_data_sees_the_first_frame(
    on_events, make_event_config, call_train, tmp_path
):
    source, data = on_events
    changes = {"candidates": (1, 2), "width": 4, "copies": 1}
    config = make_event_config(
        data, init_from=str(source), epochs=2, joint_epochs=1, ema=0.0, policy=changes
    )
    call_train(config, tmp_path / "policy")
    result = evaluate(tmp_path / "policy", exit="policy")
    assert result["share_of_exit_times_that_differ"] == 0

    config, facts = run.load(tmp_path / "policy")
    first = run.load_data(config).test.images[:, 0]
    inputs = normalize(jnp.asarray(first), *facts.normalization, dtype="float32")
    model = checkpoints.load_policy(tmp_path / "policy", config, facts)
    outputs = run_all(nnx.view(model, use_running_average=True), inputs, 1)[:, 0]
    times = exit_times(split_outputs(outputs, 2)[0], (1, 2))
    assert result["average_timesteps"] == pytest.approx(float(times.mean()))
