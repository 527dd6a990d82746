"""Training a policy: whole runs, and what they leave alone."""

import shutil

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.data import normalize
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits.prices import exit_times, split_outputs
from seenn_jax.run import build, checkpoints, folder
from tests.models.networks import logits_of
from tests.training.policy.conftest import EPOCH
from tests.training.runs import metrics_of, saved


@pytest.fixture(scope="module")
def trained_longer(call_train, trained, make_policy_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "longer"
    config = make_policy_config(init_from=str(trained), epochs=4, joint_epochs=2)
    call_train(config, workdir)
    return workdir


def test_the_network_is_frozen_until_the_joint_epochs(trained_policy, trained):
    before = saved(trained, checkpoints.best_step(trained))
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
    assert folder.load(trained_policy)[0].init_from == str(trained)


@pytest.mark.slow
def test_the_best_checkpoint_is_of_the_policy_that_ranks_best(trained_longer):
    scores = [line["validation/mean_accuracy"] for line in metrics_of(trained_longer)]
    best = max(range(len(scores)), key=lambda epoch: (scores[epoch], epoch))
    assert checkpoints.best_step(trained_longer) == (best + 1) * EPOCH


# Before the joint epochs, of which there are two of four here, and among them.
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(
    trained_longer, trained, make_policy_config, call_train, tmp_path, monkeypatch, epochs
):
    save = checkpoints.save

    def save_once(manager, step, *rest):
        if step > epochs * EPOCH:
            raise KeyboardInterrupt
        save(manager, step, *rest)

    source = shutil.copytree(trained, tmp_path / "source")
    length = {"epochs": 4, "joint_epochs": 2}
    config, workdir = make_policy_config(init_from=str(source), **length), tmp_path / "policy"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            call_train(config, workdir)
    # The network is in the run that is continued: no need for the other, or to name it again.
    shutil.rmtree(source)
    out = call_train(make_policy_config(**length), workdir)
    assert f"Continuing {workdir} after epoch {epochs}." in out
    chex.assert_trees_all_equal(saved(workdir), saved(trained_longer))
    assert call_train(make_policy_config(**length), workdir) == (
        f"{workdir} is trained: all 4 epochs are done.\n"
    )


@pytest.mark.slow
def test_a_policy_for_a_converted_network(make_config, make_policy_config, call_train, tmp_path):
    kind = {"activation": "qcfs", "loss": "mean_ce"}
    short = {"epochs": 1, "ema": 0.0, "inherit_epochs": 0, "validate_every": 1}
    call_train(make_config(**kind, **short), tmp_path / "ann")
    config = make_policy_config(**kind, epochs=1, joint_epochs=0)
    out = call_train(config, tmp_path / "policy")
    assert f"for the network of {tmp_path / 'ann'}" in out
    # It is that of the converted network: the same bits, and the same accuracy at all timesteps.
    chex.assert_trees_all_equal(
        {name: x for name, x in saved(tmp_path / "policy").items() if name.startswith("params.")},
        {name: x for name, x in saved(tmp_path / "ann").items() if name.startswith("params.")},
    )
    found = evaluate(tmp_path / "policy", exit="policy", split="validation")
    converted = evaluate(tmp_path / "ann", exit="full", split="validation")
    assert found["network"] == "converted"
    assert found["static_accuracy"] == converted["static_accuracy"]
    at_all = metrics_of(tmp_path / "policy")[-1]["validation/accuracy_all_timesteps"]
    assert at_all == pytest.approx(converted["accuracy"])
    with pytest.raises(UserError, match="joint_epochs` is 1: it must be 0 for a converted network"):
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


@pytest.mark.slow
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

    config, facts = folder.load(tmp_path / "policy")
    first = build.dataset(config).test.images[:, 0]
    inputs = normalize(jnp.asarray(first), *facts.normalization, dtype="float32")
    model = checkpoints.load_policy(tmp_path / "policy", config, facts)
    outputs = logits_of(model, inputs, 1)[:, 0]
    times = exit_times(split_outputs(outputs, 2)[0], (1, 2))
    assert result["average_timesteps"] == pytest.approx(float(times.mean()))
