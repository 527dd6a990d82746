"""What an evaluation reports of a trained run is what plain NumPy finds in its logits."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import nir as graphs
import numpy as np
import pytest
from flax import nnx

from seenn_jax import energy, engine, exits, run
from seenn_jax.calibration import threshold_with_guarantee
from seenn_jax.conversion import convert, thresholds_of
from seenn_jax.data import Split, load_dataset, normalize
from seenn_jax.errors import UserError
from seenn_jax.evaluation import evaluator
from seenn_jax.evaluation.evaluator import Choice, conversion_report, evaluate, export_nir
from seenn_jax.models import for_inference, inference_network, run_all
from seenn_jax.policy import split_outputs
from seenn_jax.training import checkpoints
from seenn_jax.training.checkpoints import load_model, load_policy
from seenn_jax.training.state import initial_state, make_optimizer

T = 3
KEYS = {
    "exit",
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


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits", validation=150)


@pytest.fixture(scope="module")
def cached(trained, dataset, compilation_cache):
    """{split: (scores by exit [N, T], correct [N, T])}, from logits of all T ticks."""
    config, facts = run.load(trained)
    model, _ = load_model(trained, config, facts)
    network = inference_network(model, facts.image_shape, T)
    logits_of = jax.jit(functools.partial(network.logits, network.params))
    found = {}
    for name in ("validation", "test"):
        split = getattr(dataset, name)
        inputs = normalize(jnp.asarray(split.images), *facts.normalization, dtype="float32")
        cumulative = np.cumsum(np.asarray(logits_of(inputs)), axis=1)
        predictions = cumulative.argmax(-1)
        streaks = np.ones(predictions.shape, int)
        for t in range(1, T):
            same = predictions[:, t] == predictions[:, t - 1]
            streaks[:, t] = np.where(same, streaks[:, t - 1] + 1, 1)
        scores = {exit: np.asarray(score(cumulative)) for exit, score in exits.SCORES.items()}
        found[name] = scores | {"patience": streaks}, predictions == split.labels[:, None]
    return found


@pytest.fixture(scope="module")
def evaluated(trained, compilation_cache):
    """`(exit, **arguments) -> result` of the trained run, each computed once."""

    @functools.cache
    def call(exit="confidence", **arguments):
        return evaluate(trained, exit=exit, **arguments)

    return call


def at_exit(scores, correct, threshold):
    """(accuracy, exit times) where a sample leaves at the first score above the threshold."""
    exceeds = scores > threshold
    exceeds[:, -1] = True
    times = exceeds.argmax(1) + 1
    return correct[np.arange(len(times)), times - 1].mean(), times


# --- The result ------------------------------------------------------------------------------


# Margin is a score like the other two, a policy needs a run of its own.
USED = [exit for exit in evaluator.EXITS if exit not in ("margin", "policy")]


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


def scores_at_most(scores, timesteps):
    """Average timesteps where nothing but the longest patience, or no score at all, lets leave."""
    return timesteps if scores.dtype.kind == "f" else at_exit(scores, scores > 0, T - 1)[1].mean()


# --- The threshold ---------------------------------------------------------------------------


@pytest.mark.parametrize("exit", ["confidence", "entropy", "patience"])
def test_the_chosen_threshold_is_the_best_on_the_validation_split(evaluated, cached, exit):
    scores, correct = cached["validation"]
    scores = scores[exit]
    candidates = np.unique(np.append(scores, [0, 1]).astype(scores.dtype))
    tried = [at_exit(scores, correct, threshold) for threshold in candidates]
    full = correct[:, -1].mean()
    best = min(times.mean() for accuracy, times in tried if accuracy >= full - 0.001)

    result = evaluated(exit)
    threshold = np.float32(result["threshold"]) - (exit == "patience")
    accuracy, times = at_exit(scores, correct, threshold)
    assert times.mean() == best
    assert accuracy >= full - 0.001
    assert "validation split (150 images)" in result["threshold_rule"]
    assert "0.1 point" in result["threshold_rule"]


@pytest.fixture(scope="module")
def chosen(cached, dataset):
    """`choice -> (threshold, rule, guarantee, accuracy, exit times)` on the validation split."""
    scores, correct = cached["validation"]
    # Only whether two predictions are alike, and right, matters here: 10 stands for any wrong one.
    predictions = np.where(correct, dataset.validation.labels[:, None], 10)
    replay = evaluator._Replay(
        scores["confidence"], predictions, dataset.validation.labels, correct
    )

    def choose(**choice):
        threshold, rule, guarantee = evaluator._choose(Choice(**choice), "confidence", replay, T)
        found = at_exit(replay.scores, correct, np.float32(threshold))
        return threshold, rule, guarantee, *found

    return choose


def test_more_tolerance_is_fewer_timesteps(chosen, cached, evaluated):
    _, correct = cached["validation"]
    threshold, _, _, _, strict = chosen()
    assert threshold == evaluated()["threshold"]
    _, rule, _, accuracy, loose = chosen(tolerance=0.05)
    assert accuracy >= correct[:, -1].mean() - 0.05
    assert loose.mean() < strict.mean()
    assert "5 point" in rule


def test_a_target_of_timesteps_is_met_on_the_validation_split(chosen):
    _, rule, _, _, times = chosen(target_timesteps=2.0)
    assert 1.9 < times.mean() <= 2.0
    assert "at most 2 timesteps" in rule


def test_a_risk_is_guaranteed_on_the_validation_split(chosen, cached):
    _, correct = cached["validation"]
    threshold, rule, guarantee, _, times = chosen(risk=0.1, loss="accuracy")
    assert threshold == guarantee["threshold"]
    assert (guarantee["n"], guarantee["eps"], guarantee["delta"]) == (150, 0.1, 0.1)
    assert guarantee["average_timesteps"] == pytest.approx(times.mean())
    at = correct[np.arange(150), times - 1]
    assert guarantee["empirical_risk"] == pytest.approx((correct[:, -1] & ~at).mean())
    assert "accuracy risk at most eps = 0.1 with probability 0.9" in rule


@pytest.mark.parametrize("loss", ["accuracy", "disagreement"])
def test_the_risk_on_the_reported_split_is_measured(evaluated, cached, loss):
    result = evaluated(choice=Choice(risk=0.1, loss=loss), split="test")
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


def test_a_given_threshold_is_used_as_it_is(evaluated, cached):
    scores, correct = cached["test"]
    result = evaluated(choice=Choice(threshold=0.4))
    assert result["threshold"] == 0.4
    assert result["threshold_rule"] == "as given"
    accuracy, times = at_exit(scores["confidence"], correct, np.float32(0.4))
    assert 1 < times.mean() < T
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert result["average_timesteps"] == pytest.approx(times.mean(), abs=1e-6)


# --- How it is run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [{"batch_size": 360}, {"method": "masked"}, {"method": "full", "batch_size": 50}],
    ids=str,
)
def test_the_figures_depend_neither_on_the_batch_nor_on_the_method(evaluated, arguments):
    """The split's 360 images are divided by 360 and not by 256, the default, nor by 50."""
    result, other = evaluated(), evaluated(**arguments)
    assert other.items() >= arguments.items()
    differing = {key for key in result if result[key] != other[key]}
    # The revision: someone may commit while the tests run.
    assert differing <= {"batch_size", "method", "images_per_second", "revision"}


def test_the_batch_is_no_larger_than_a_small_split(evaluated):
    assert evaluated()["batch_size"] == 256
    small = evaluated(split="validation")
    assert small["batch_size"] == small["num_samples"] == 150
    # The rule holds on the split that it was chosen on.
    assert small["accuracy"] >= small["static_accuracy"][-1] - 0.001


def test_the_best_checkpoint_and_its_average_are_evaluated(evaluated, trained):
    config, facts = run.load(trained)
    model, step = load_model(trained, config, facts)
    with checkpoints.open_checkpoints(trained, read_only=True) as manager:
        assert step == checkpoints.best_step(manager)
        names = [f"{kind}.head.kernel" for kind in ("average.0", "params")]
        shapes = {name: jax.ShapeDtypeStruct((16, 10), np.float32) for name in names}
        average, params = checkpoints.restore(manager, step, shapes).values()
    assert evaluated()["checkpoint_step"] == step
    np.testing.assert_array_equal(model.head.kernel[...], average)
    assert not np.array_equal(average, params)


def test_an_evaluation_changes_nothing_in_the_run(trained, evaluated, contents, tmp_path, caplog):
    workdir = shutil.copytree(trained, tmp_path / "run")
    (workdir / "checkpoints" / "999.orbax-checkpoint-tmp").mkdir()
    before = contents(workdir)
    result = evaluate(workdir)
    assert contents(workdir) == before
    assert caplog.text == ""
    assert result["accuracy"] == evaluated()["accuracy"]


def test_streamed_data_are_evaluated_chunk_by_chunk(trained_on_imagenet, monkeypatch):
    monkeypatch.setattr(engine, "CHUNK_BYTES", 3 * 8 * 8 * 3)  # three images
    found = evaluate(trained_on_imagenet, choice=Choice(target_timesteps=1.5))
    config, facts = run.load(trained_on_imagenet)
    dataset = run.load_data(config)
    model, _ = load_model(trained_on_imagenet, config, facts)
    images = jnp.asarray(dataset.test.images[:])
    inputs = normalize(images, *facts.normalization, dtype="float32")
    logits = run_all(nnx.view(model, use_running_average=True), inputs, 2)
    correct = exits.accumulate(logits).argmax(-1) == dataset.test.labels[:, None]
    assert found["static_accuracy"] == pytest.approx(correct.mean(0).tolist())
    assert found["num_samples"] == 8
    assert found["share_of_answers_that_differ"] == found["share_of_exit_times_that_differ"] == 0
    assert "validation split (8 images)" in found["threshold_rule"]


def test_one_timestep_leaves_nothing_to_decide(trained, make_config, tmp_path):
    config, facts = make_config(timesteps=1, inherit_epochs=0, ema=0.0), run.load(trained)[1]
    run.claim(tmp_path, config, facts)
    with checkpoints.open_checkpoints(tmp_path) as manager:
        optimizer = make_optimizer(config, 1)
        _, state = initial_state(run.build(config, facts), optimizer, config.ema)
        checkpoints.save(manager, 1, state, 0.1)
    result = evaluate(tmp_path)
    assert result["exit_shares"] == [1]
    assert result["average_timesteps"] == result["aet"] == result["oracle_aet"] == 1
    assert [row["threshold"] for row in result["sweep"]] == [0, 1]
    assert result["accuracy"] == pytest.approx(result["static_accuracy"][0])


def test_any_number_of_timesteps(evaluated):
    result = evaluated("full", method="full", timesteps=5)
    assert result["timesteps"] == len(result["exit_shares"]) == 5
    assert result["static_accuracy"][:T] == pytest.approx(evaluated("full")["static_accuracy"])
    assert result["network"] == "spiking"


# --- Converted networks ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_ann(call_train, make_config, tmp_path_factory):
    """A run of an ordinary network with QCFS activations."""
    workdir = tmp_path_factory.mktemp("runs") / "ann"
    changes = {"activation": "qcfs", "loss": "mean_ce", "epochs": 2, "inherit_epochs": 0}
    said = call_train(make_config(**changes), workdir)
    assert "T = 1, in" in said
    assert " at t = 1  " in said
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {name for line in lines for name in line if "validation" in name} == {
        "validation/accuracy_1"
    }
    return workdir


def test_a_converted_run_exits_early_and_its_source_does_not(trained_ann, dataset):
    config, facts = run.load(trained_ann)
    model, _ = load_model(trained_ann, config, facts)
    inputs = normalize(jnp.asarray(dataset.test.images), *facts.normalization, dtype="float32")

    def logits_of(model, timesteps):
        network = inference_network(model, facts.image_shape, timesteps)
        return np.asarray(jax.jit(network.logits)(network.params, inputs))

    labels = dataset.test.labels
    source = evaluate(trained_ann, ann=True)
    assert source["accuracy"] == (logits_of(model, 1)[:, 0].argmax(-1) == labels).mean()
    assert (source["network"], source["exit"], source["timesteps"]) == ("ANN", "full", 1)

    cumulative = np.cumsum(logits_of(convert(model, facts.image_shape), 4), 1) / 8
    correct = cumulative.argmax(-1) == labels[:, None]
    scores = np.array(exits.confidence(cumulative))
    threshold = float(np.median(scores[:, 1]))
    result = evaluate(trained_ann, timesteps=4, choice=Choice(threshold=threshold))
    accuracy, times = at_exit(scores, correct, np.float32(threshold))
    assert len(np.unique(times)) > 1
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert result["average_timesteps"] == pytest.approx(times.mean(), abs=1e-6)
    assert result["static_accuracy"] == pytest.approx(correct.mean(0).tolist(), abs=1e-6)
    assert result["share_of_exit_times_that_differ"] == 0
    assert result["temperatures"] == [8] * 4
    assert (result["network"], result["method"]) == ("converted", "slots")

    report = conversion_report(trained_ann)
    assert report["ann_accuracy"] == pytest.approx(source["accuracy"])
    assert report["timesteps"] == [1, 2, 4, 8, 16, 32]
    assert report["accuracy"][:3] == pytest.approx([correct[:, t - 1].mean() for t in (1, 2, 4)])
    assert len(report["layers"]) == 7
    for layer in report["layers"]:
        assert layer["threshold"] > 0
        assert len(layer["error"]) == 6
        # In the mean over units the quantiser's error is left, of at most lambda / 16.
        assert layer["error"][-1] < layer["error"][0]


def test_a_run_with_relus_is_calibrated_and_converted(trained, dataset, make_config, tmp_path):
    config = make_config(activation="relu", loss="mean_ce", timesteps=2, ema=0.0)
    facts = run.load(trained)[1]
    model = run.build(config, facts)
    run.claim(tmp_path, config, facts)
    with checkpoints.open_checkpoints(tmp_path) as manager:
        _, state = initial_state(model, make_optimizer(config, 1), config.ema)
        checkpoints.save(manager, 1, state, 0.1)
    few = dataset._replace(train=Split(*(array[:64] for array in dataset.train)))
    found, largest = (
        thresholds_of(run.convert(model, config, facts, few, percentile))
        for percentile in (None, 100.0)
    )
    assert len(found) == 7
    assert all(0 < found[place] < largest[place] for place in found)
    result = evaluate(tmp_path, exit="full", method="full", percentile=90.0)
    assert (result["network"], result["timesteps"]) == ("converted", 2)


def test_several_runs_are_compared(program, trained_ann):
    both = f"--workdir={trained_ann},{trained_ann}"
    status, _, err = program("evaluate.py", both)
    assert status == 2
    assert "names 2 runs, and one is evaluated at a time" in err
    copy = trained_ann.parent / "both.json"
    status, out, err = program("evaluate.py", both, "--conversion_report", f"--json={copy}")
    assert (status, err) == (0, "")
    report = json.loads((trained_ann / "evaluation" / "conversion.json").read_text())
    assert json.loads(copy.read_text()) == [report, report]
    assert out.count(f"{100 * report['ann_accuracy']:.2f}") >= 2
    assert not (trained_ann / "evaluation" / "confidence").exists()


def test_what_a_network_is_not_for_is_named(trained, trained_ann):
    direct = "is of a directly trained spiking network: leave it out"
    for call, match in (
        (lambda: evaluate(trained, ann=True), f"--ann is for a run .* {direct}"),
        (lambda: conversion_report(trained), f"--conversion_report is for a run .* {direct}"),
        (lambda: evaluate(trained, percentile=99.0), r"--percentile=99\.0 is for .*'lif': leave"),
        (
            lambda: evaluate(trained_ann, percentile=99.0),
            r"--percentile=99\.0 is for .*'qcfs': leave",
        ),
        (lambda: evaluate(trained_ann, dtype="int8"), "--dtype=int8 needs spikes of 0 and 1"),
        (lambda: conversion_report(trained_ann, dtype="int8"), "unknown dtype 'int8'"),
        (lambda: conversion_report(trained_ann, split="dev"), "unknown split 'dev'"),
        (lambda: evaluate(trained_ann, timesteps=0), "--timesteps is 0: it must be at least 1"),
        (
            lambda: evaluate(trained_ann, ann=True, choice=Choice(threshold=0.5)),
            r"--threshold=0\.5 has no meaning for exit 'full'",
        ),
    ):
        with pytest.raises(UserError, match=match):
            call()


def test_a_converted_run_is_calibrated_with_a_guarantee(trained_ann, dataset):
    config, facts = run.load(trained_ann)
    model = convert(load_model(trained_ann, config, facts)[0], facts.image_shape)
    split = dataset.validation
    inputs = normalize(jnp.asarray(split.images), *facts.normalization, dtype="float32")
    network = inference_network(model, facts.image_shape, 4)
    logits = jax.jit(network.logits)(network.params, inputs)
    cumulative = np.cumsum(np.asarray(logits), 1) / 8
    expected = threshold_with_guarantee(
        np.asarray(exits.confidence(cumulative)), cumulative.argmax(-1), 0.2, 0.1, "disagreement"
    )
    result = evaluate(trained_ann, timesteps=4, choice=Choice(risk=0.2))
    found = result["guarantee"]
    assert expected.certified
    assert (found["n"], found["threshold"]) == (150, pytest.approx(expected.threshold))
    assert found["empirical_risk"] == pytest.approx(expected.empirical_risk)
    assert 1 < result["average_timesteps"] < 4


def test_networks_are_written_as_nir(trained, trained_ann, program, tmp_path):
    for workdir, kind, other in (
        (trained, graphs.LIF, graphs.IF),
        (trained_ann, graphs.IF, graphs.LIF),
    ):
        path = tmp_path / f"{workdir.name}.nir"
        export_nir(workdir, path)
        graph = graphs.read(path)
        kinds = [type(node) for node in graph.nodes.values()]
        assert kinds.count(kind) == 7
        assert other not in kinds
        np.testing.assert_array_equal(graph.metadata["mean"], run.load(workdir)[1].normalization[0])
        assert graph.metadata["timesteps"] == T
    status, _, err = program("evaluate.py", f"--workdir={trained}", f"--nir={path}")
    assert status == 2
    assert "ann.nir exists already" in err
    new = tmp_path / "new.nir"
    status, _, err = program("evaluate.py", f"--workdir={trained_ann}", "--ann", f"--nir={new}")
    assert status == 2
    assert "writes the spiking network, and --ann is for the one that it was converted from" in err
    assert not new.exists()


# --- A policy --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_policy(trained_policy, dataset, compilation_cache):
    """(the policy's logits, whether each t is right) of the test split, run plainly."""
    config, facts = run.load(trained_policy)
    inputs = normalize(jnp.asarray(dataset.test.images), *facts.normalization, dtype="float32")
    found = []
    for model, ticks in (
        (load_policy(trained_policy, config, facts), 1),
        (load_model(trained_policy, config, facts)[0], T),
    ):
        network = inference_network(model, facts.image_shape, ticks)
        found.append(np.asarray(jax.jit(network.logits)(network.params, inputs)))
    chosen, logits = found
    correct = np.cumsum(logits, axis=1).argmax(-1) == dataset.test.labels[:, None]
    assert chosen.shape[-1] == 2 * 2 + 10  # candidates twice, classes
    return np.asarray(split_outputs(chosen[:, 0], 2)[0]), correct


@pytest.mark.parametrize("price", [None, 0.3, -0.3])
def test_a_policy_prescribes_the_exits(trained_policy, by_policy, price):
    chosen, correct = by_policy
    result = evaluate(trained_policy, exit="policy", choice=Choice(threshold=price))
    scores = chosen - (price or 0) * np.array([1, 3])
    times = np.where(scores[:, 0] >= scores[:, 1], 1, 3)
    assert result["average_timesteps"] == pytest.approx(times.mean())
    assert result["exit_shares"] == pytest.approx([(times == t).mean() for t in (1, 2, 3)])
    at = correct[np.arange(360), times - 1]
    assert result["accuracy"] == pytest.approx(at.mean())
    assert result["threshold"] == (price or 0)
    assert result["replayed_accuracy"] == pytest.approx(at.mean())
    found = result["policy"]
    assert (found["collapsed_to"] is None) == (len(set(times)) > 1)
    # SEENN-I beside it takes as many timesteps, but for ties and the last sample.
    average = found["confidence"]["average_timesteps"]
    assert times.mean() - 0.02 < average <= times.mean() + 1e-6
    assert 0 < found["macs"] < found["network_macs"] * 10
    assert {row["average_timesteps"] for row in result["sweep"]} >= {1.0, 3.0}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_price_is_chosen_for_a_target_on_the_validation_split(trained_policy):
    choice = Choice(target_timesteps=1.8)
    result = evaluate(trained_policy, exit="policy", choice=choice, split="validation")
    assert 1.6 < result["average_timesteps"] <= 1.8 + 1e-6
    assert "at most 1.8 timesteps" in result["threshold_rule"]
    masked = evaluate(
        trained_policy, exit="policy", choice=choice, split="validation", method="masked"
    )
    assert masked["accuracy"] == result["accuracy"]
    assert masked["exit_shares"] == result["exit_shares"]


def test_a_policy_s_network_exits_by_confidence_too(trained_policy, by_policy):
    result = evaluate(trained_policy, exit="full")
    assert result["static_accuracy"] == pytest.approx(by_policy[1].mean(0).tolist())
    assert result["policy"] is None


def test_a_policy_that_is_not_there_or_cannot_choose(trained, trained_policy):
    for workdir, arguments, match in [
        (trained, {}, "--exit=policy needs a run with a policy, and .*tiny has none: train one"),
        (trained_policy, {"timesteps": 2}, r"--timesteps is 2 and the policy may choose up to 3"),
        (trained_policy, {"choice": Choice(risk=0.1)}, "--exit=policy has no grid of thresholds"),
        (trained_policy, {"choice": Choice(threshold=float("inf"))}, "inf is no price"),
        (trained_policy, {"choice": Choice(target_timesteps=3.5)}, "candidates are from 1 to 3"),
    ]:
        with pytest.raises(UserError, match=match):
            evaluate(workdir, exit="policy", **arguments)


# --- Energy ----------------------------------------------------------------------------------


def account_of(workdir, dataset, timesteps, exit_times, ann=False):
    """`energy.account` of the test split, run plainly."""
    config, facts = run.load(workdir)
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
    result = evaluated(choice=Choice(threshold=0.4), energy=True)
    scores, correct = cached["test"]
    _, times = at_exit(scores["confidence"], correct, np.float32(0.4))
    found, expected = result["energy"], account_of(trained, dataset, T, times)
    for key in ("at_exit", "ann"):
        assert found[key] == pytest.approx(expected[key], rel=1e-6)
    assert [rate["place"] for rate in found["rates"]][:2] == ["stem", "blocks.0.neuron1"]
    bills = [bill["synaptic_operations"] for bill in found["by_timestep"]]
    assert 0 < bills[0] < found["at_exit"]["synaptic_operations"] < bills[-1]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert evaluated()["energy"] is None


def test_a_converted_run_s_energy_is_counted(trained_ann, dataset):
    found = evaluate(trained_ann, exit="full", timesteps=4, energy=True)["energy"]
    expected = account_of(trained_ann, dataset, 4, np.full(360, 4), ann=True)
    assert found["at_exit"] == pytest.approx(expected["at_exit"], rel=1e-6)
    assert found["at_exit"] == found["by_timestep"][-1]
    with pytest.raises(UserError, match="--energy counts the spikes of a network, and --ann's"):
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


# --- Mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"exit": "confidense"}, r"unknown exit 'confidense': .*did you mean 'confidence'"),
        ({"split": "dev"}, r"unknown split 'dev': the known ones are test, train, validation"),
        ({"method": "slot"}, r"unknown method 'slot': .*did you mean 'slots'"),
        ({"choice": Choice(threshold=1.5)}, r"threshold 1\.5 is outside \[0, 1\]"),
        ({"choice": Choice(threshold=-0.1)}, r"threshold -0\.1 is outside \[0, 1\]"),
        ({"choice": Choice(threshold=float("nan"))}, r"threshold nan is outside \[0, 1\]"),
        ({"choice": Choice(threshold=0.5), "exit": "full"}, r"--threshold=0\.5 has no meaning"),
        ({"choice": Choice(threshold=4), "exit": "patience"}, r"from 1 to T = 3"),
        ({"choice": Choice(threshold=1.5), "exit": "patience"}, r"--threshold=1\.5 is no patience"),
        ({"choice": Choice(threshold=0.5, risk=0.1)}, r"--threshold=0\.5 and --risk=0\.1"),
        ({"choice": Choice(tolerance=1.0)}, r"--tolerance is 1\.0"),
        ({"choice": Choice(risk=0.1), "exit": "patience"}, r"no grid of thresholds for --risk"),
        ({"batch_size": 361}, r"--batch_size is 361 and the test split has 360 images"),
        ({"batch_size": 0}, r"--batch_size is 0 and the test split has 360 images"),
        ({"batch_size": 151, "split": "validation"}, r"the validation split has 150 images"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_is_named(trained, contents, arguments, match):
    before = contents(trained)
    with pytest.raises(UserError, match=match):
        evaluate(trained, **arguments)
    assert contents(trained) == before


def test_a_checkpoint_of_another_architecture_is_named(copy_of_trained, contents):
    path = copy_of_trained / "run.json"
    content = json.loads(path.read_text())
    content["config"]["model"]["width"] = 6
    path.write_text(json.dumps(content))
    before = contents(copy_of_trained)
    match = r"average\.0\.blocks\.0\.conv1\.bn\.bias is \(6,\) .* has it as \(4,\); use the config"
    with pytest.raises(UserError, match=match):
        evaluate(copy_of_trained)
    assert contents(copy_of_trained) == before


def test_a_run_without_a_checkpoint_is_named(copy_of_trained, tmp_path):
    folder = copy_of_trained / "checkpoints"
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="copy has no checkpoint yet: train it with"):
        evaluate(copy_of_trained)
    # One that was being written when the process was killed is none.
    (folder / "40.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(UserError, match="copy has no checkpoint yet"):
        evaluate(copy_of_trained)
    with pytest.raises(UserError, match="nowhere holds no run"):
        evaluate(tmp_path / "nowhere")


# --- Event data ------------------------------------------------------------------------------


def test_every_method_gives_the_same_on_event_data(on_events):
    workdir, _ = on_events
    choice = Choice(target_timesteps=2.0)
    slots, masked = (
        evaluate(workdir, choice=choice, method=method, batch_size=4)
        for method in ("slots", "masked")
    )
    for result in (slots, masked):
        # Of all T ticks at once, that is.
        assert result["share_of_exit_times_that_differ"] == 0
        assert result["share_of_answers_that_differ"] == 0
    assert slots["num_samples"] == 10
    assert len(set(slots["exit_shares"])) > 1
    for name in ("accuracy", "average_timesteps", "exit_shares", "threshold"):
        assert slots[name] == masked[name]
    # Fewer timesteps are the first frames.
    part = evaluate(workdir, exit="full", timesteps=2)
    assert part["static_accuracy"] == slots["static_accuracy"][:2]
    with pytest.raises(UserError, match=r"--timesteps is 4 and cifar10_dvs .* 3 frames"):
        evaluate(workdir, timesteps=4)
