"""The figures of a trained run are what plain NumPy finds in its logits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax import energy
from seenn_jax.data import normalize
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits import EXITS, Given, Risk
from seenn_jax.models.conversion import convert
from seenn_jax.models.network import for_inference
from seenn_jax.run import folder
from seenn_jax.run.checkpoints import load_model
from tests.evaluation.conftest import T
from tests.evaluation.plain import at_exit

KEYS = {
    "exit",
    "knob",
    "threshold",
    "accuracy",
    "average_timesteps",
    "exit_shares",
    "static_accuracy",
    "sweep",
    "aet",
    "oracle_aet",
    "num_samples",
    "timesteps",
    "dataset",
    "split",
    "seed",
    "revision",
    "versions",
    "device",
}

# Margin is a score like the other two, a policy needs a run of its own.
USED = [exit for exit in EXITS if exit not in ("margin", "policy")]


@pytest.mark.parametrize("exit", USED)
def test_figures_are_what_numpy_finds_in_the_logits(evaluated, cached, exit):
    result = evaluated(exit)
    scores, correct = cached["test"]
    if exit == "full":
        accuracy, times = correct[:, -1].mean(), np.full(len(correct), T)
    else:
        # A patience of k leaves where the streak exceeds k - 1.
        threshold = result["threshold"] - (exit == "patience")
        accuracy, times = at_exit(scores[exit], correct, np.float32(threshold))
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert result["average_timesteps"] == pytest.approx(times.mean(), abs=1e-6)
    shares = [(times == t).mean() for t in (1, 2, 3)]
    assert result["exit_shares"] == pytest.approx(shares, abs=1e-6)
    assert result["static_accuracy"] == pytest.approx(correct.mean(0).tolist(), abs=1e-6)
    assert result["aet"] == pytest.approx(T - correct.mean(0)[:-1].sum(), abs=1e-5)
    first = np.where(correct.any(1), correct.argmax(1) + 1, T)
    assert result["oracle_aet"] == pytest.approx(first.mean(), abs=1e-5)


@pytest.mark.parametrize("exit", USED)
def test_the_result_is_whole_and_consistent(evaluated, trained, exit):
    result = evaluated(exit)
    assert result.keys() >= KEYS
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["exit"] == exit
    assert result["knob"] == ("patience" if exit == "patience" else "threshold")
    assert (result["dataset"], result["split"], result["seed"]) == ("digits", "test", 0)
    assert (result["num_samples"], result["timesteps"]) == (360, T)
    assert result["workdir"] == str(trained)
    assert result["images_per_second"] > 0
    assert len(result["exit_shares"]) == len(result["static_accuracy"]) == T
    assert sum(result["exit_shares"]) == pytest.approx(1)
    average = np.dot([1, 2, 3], result["exit_shares"])
    assert result["average_timesteps"] == pytest.approx(average)
    assert 1 <= result["oracle_aet"] <= result["aet"] + 1e-6 <= T + 1e-6
    # In float32 all ways to run the exits agree.
    assert result["share_of_exit_times_that_differ"] == 0
    assert result["share_of_answers_that_differ"] == 0


def test_full_runs_all_timesteps(evaluated):
    result = evaluated("full")
    assert result["threshold"] is None
    assert result["sweep"] == []
    assert result["exit_shares"] == [0, 0, 1]
    assert result["average_timesteps"] == T
    assert result["accuracy"] == pytest.approx(result["static_accuracy"][-1])


@pytest.mark.parametrize("exit", ["confidence", "patience"])
def test_the_sweep_goes_from_one_timestep_to_all(evaluated, cached, exit):
    scores, correct = cached["test"]
    result = evaluated(exit)
    sweep = result["sweep"]
    thresholds = [row["threshold"] for row in sweep]
    assert thresholds == sorted(set(thresholds))
    assert sweep[0]["average_timesteps"] == 1
    assert sweep[0]["accuracy"] == pytest.approx(result["static_accuracy"][0])
    assert sweep[-1]["average_timesteps"] == pytest.approx(scores_at_most(scores[exit], T))
    for row in sweep[:: max(1, len(sweep) // 7)]:
        accuracy, times = at_exit(
            scores[exit], correct, np.float32(row["threshold"]) - (exit == "patience")
        )
        assert row["accuracy"] == pytest.approx(accuracy, abs=1e-6)
        assert row["average_timesteps"] == pytest.approx(times.mean(), abs=1e-5)


@pytest.mark.parametrize("exit", ["confidence", "patience"])
def test_the_rows_of_a_sweep_count_who_leaves_when(evaluated, cached, exit):
    scores, correct = cached["test"]
    result = evaluated(exit)
    for row in result["sweep"]:
        assert sum(row["exit_counts"]) == 360
        average = np.dot([1, 2, 3], row["exit_counts"]) / 360
        assert row["average_timesteps"] == pytest.approx(average, abs=1e-6)
    row = result["sweep"][len(result["sweep"]) // 3]
    value = np.float32(row["threshold"]) - (exit == "patience")
    _, times = at_exit(scores[exit], correct, value)
    assert row["exit_counts"] == [(times == t).sum() for t in (1, 2, 3)]
    assert max(row["exit_counts"]) < 360


def test_the_figures_by_class_add_up(evaluated, dataset):
    result = evaluated()
    rows = result["by_class"]
    assert [row["class"] for row in rows] == [str(digit) for digit in range(10)]
    assert [row["samples"] for row in rows] == np.bincount(dataset.test.labels).tolist()
    counts = np.sum([row["exit_counts"] for row in rows], axis=0)
    assert counts / 360 == pytest.approx(result["exit_shares"])
    assert sum(row["right"] for row in rows) / 360 == pytest.approx(result["accuracy"])
    wrong = sum(pair["count"] for pair in result["mistakes"])
    assert wrong / 360 == pytest.approx(1 - result["accuracy"])


def test_confidence_is_that_of_the_logits(evaluated, cached, cumulative):
    scores, correct = cached["test"]
    result = evaluated()
    _, times = at_exit(scores["confidence"], correct, np.float32(result["threshold"]))
    sure = scores["confidence"][np.arange(360), times - 1]
    bins = result["calibration"]["bins"]
    total = sum(row["samples"] * row["confidence"] for row in bins if row["samples"])
    assert total / 360 == pytest.approx(sure.mean(), abs=1e-6)
    assert sum(row["samples"] for row in bins) == 360
    median = np.median(scores["confidence"][correct[:, 1], 1])
    assert result["confidence_by_timestep"][1]["right"][2] == pytest.approx(median, abs=1e-6)


def scores_at_most(scores, timesteps):
    """Average timesteps where nothing but the longest patience, or no score at all, lets leave."""
    return timesteps if scores.dtype.kind == "f" else at_exit(scores, scores > 0, T - 1)[1].mean()


@pytest.mark.parametrize("loss", ["accuracy", "disagreement"])
def test_the_risk_on_the_reported_split_is_measured(evaluated, cached, loss):
    result = evaluated(choice=Risk(0.1, loss=loss), split="test")
    scores, correct = cached["test"]
    threshold = np.float32(result["guarantee"]["threshold"])
    _accuracy, times = at_exit(scores["confidence"], correct, threshold)
    risk = result["guarantee"]["reported_risk"]
    if loss == "accuracy":
        lost = correct[:, -1] & ~correct[np.arange(360), times - 1]
        assert risk == pytest.approx(lost.mean())
    else:  # at least all whose answer is right at one of the two and wrong at the other
        assert risk >= (correct[:, -1] != correct[np.arange(360), times - 1]).mean()
    assert 0 < risk < 0.3
    assert json.loads(json.dumps(result, allow_nan=False)) == result


# --- A policy --------------------------------------------------------------------------------


@pytest.mark.parametrize("price", [None, 0.3, -0.3])
def test_a_policy_prescribes_the_exits(trained_policy, by_policy, price):
    chosen, correct = by_policy
    choice = None if price is None else Given(price)
    result = evaluate(trained_policy, exit="policy", choice=choice)
    scores = chosen - (price or 0) * np.array([1, 3])
    times = np.where(scores[:, 0] >= scores[:, 1], 1, 3)
    assert result["average_timesteps"] == pytest.approx(times.mean())
    assert result["exit_shares"] == pytest.approx([(times == t).mean() for t in (1, 2, 3)])
    at = correct[np.arange(360), times - 1]
    assert result["accuracy"] == pytest.approx(at.mean())
    assert (result["knob"], result["threshold"]) == ("price", price or 0)
    assert result["replayed_accuracy"] == pytest.approx(at.mean())
    found = result["policy"]
    assert (found["collapsed_to"] is None) == (len(set(times)) > 1)
    # SEENN-I beside it takes as many timesteps, but for ties and the last sample.
    average = found["confidence"]["average_timesteps"]
    assert times.mean() - 0.02 < average <= times.mean() + 1e-6
    assert 0 < found["macs"] < found["network_macs"] * 10
    assert {row["average_timesteps"] for row in result["sweep"]} >= {1.0, 3.0}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


# --- Energy ----------------------------------------------------------------------------------


def account_of(workdir, dataset, timesteps, exit_times, ann=False):
    """`energy.account` of the test split, run plainly."""
    config, facts = folder.load(workdir)
    model, _ = load_model(workdir, config, facts)
    if ann:
        model = convert(model, facts.image_shape)
    graph, state = nnx.split(for_inference(model))
    inputs = normalize(jnp.asarray(dataset.test.images), *facts.normalization, dtype="float32")

    @jax.jit
    def count(state, inputs):
        return energy.operations(nnx.merge(graph, state), inputs, timesteps)

    found = energy.layers(nnx.merge(graph, state), facts.image_shape)
    return energy.account(found, *jax.device_get(count(state, inputs)), exit_times)


def test_energy_is_counted_up_to_each_exit(evaluated, cached, trained, dataset):
    result = evaluated(choice=Given(0.4), energy=True)
    scores, correct = cached["test"]
    _, times = at_exit(scores["confidence"], correct, np.float32(0.4))
    found, expected = result["energy"], account_of(trained, dataset, T, times)
    for key in ("at_exit", "ann"):
        assert found[key] == pytest.approx(expected[key], rel=1e-6)
    assert [rate["place"] for rate in found["rates"]][:2] == ["stem", "blocks.0.neuron1"]
    moved, average = found["memory"], result["average_timesteps"]
    shares = moved["at_exit"]["bytes"]["weights"], moved["by_timestep"][0]["bytes"]["weights"]
    assert shares[0] == pytest.approx(average * shares[1])
    assert moved["at_exit"]["picojoules"] > moved["by_timestep"][0]["picojoules"]
    assert len(moved["by_timestep"]) == T
    bills = [bill["synaptic_operations"] for bill in found["by_timestep"]]
    assert 0 < bills[0] < found["at_exit"]["synaptic_operations"] < bills[-1]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert evaluated()["energy"] is None


def test_a_converted_run_s_energy_is_counted(trained_ann, dataset):
    found = evaluate(trained_ann, exit="full", timesteps=4, energy=True)["energy"]
    expected = account_of(trained_ann, dataset, 4, np.full(360, 4), ann=True)
    assert found["at_exit"] == pytest.approx(expected["at_exit"], rel=1e-6)
    assert found["at_exit"] == found["by_timestep"][-1]
    with pytest.raises(UserError, match="`energy` counts the spikes of a network, and `ann`'s"):
        evaluate(trained_ann, ann=True, energy=True)


def test_the_policy_s_macs_are_in_the_bill(trained_policy):
    result = evaluate(trained_policy, exit="policy", energy=True)
    found, macs = result["energy"], result["policy"]["macs"]
    assert found["policy_macs"] == macs > 0
    stem, *rest = found["layers"]
    assert stem["receives"] == "pixels"
    each = sum(layer["macs"] for layer in rest if layer["receives"] == "real numbers")
    expected = stem["macs"] + each * result["average_timesteps"] + macs
    assert found["at_exit"]["macs"] == pytest.approx(expected)
