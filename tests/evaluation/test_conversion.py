"""Converted networks are evaluated as what plain NumPy finds, and compared with their ANN."""

import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.data import Split
from seenn_jax.errors import UserError
from seenn_jax.evaluation.conversion import conversion_report
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits import Given, Risk
from seenn_jax.exits.thresholds import threshold_with_guarantee
from seenn_jax.models.conversion import convert, thresholds_of
from seenn_jax.run import build, folder
from seenn_jax.run.checkpoints import load_model
from tests.evaluation.plain import at_exit, logits_of
from tests.run.untrained import untrained


def test_a_converted_run_exits_early_and_its_source_does_not(trained_ann, dataset):
    config, facts = folder.load(trained_ann)
    model, _ = load_model(trained_ann, config, facts)
    images, labels = dataset.test.images, dataset.test.labels
    source = evaluate(trained_ann, ann=True)
    answers = logits_of(model, facts, images, 1)[:, 0].argmax(-1)
    assert source["accuracy"] == (answers == labels).mean()
    assert (source["network"], source["exit"], source["timesteps"]) == ("ANN", "full", 1)

    snn = convert(model, facts.image_shape)
    cumulative = np.cumsum(logits_of(snn, facts, images, 4), 1) / 8
    correct = cumulative.argmax(-1) == labels[:, None]
    scores = np.array(exits.confidence(cumulative))
    threshold = float(np.median(scores[:, 1]))
    result = evaluate(trained_ann, timesteps=4, choice=Given(threshold))
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
    assert len(report["layers"]) == 3
    for layer in report["layers"]:
        assert layer["threshold"] > 0
        assert len(layer["error"]) == 6
        # In the mean over units the quantiser's error is left, of at most lambda / 16.
        assert layer["error"][-1] < layer["error"][0]


def test_a_run_with_relus_is_calibrated_and_converted(trained, dataset, make_config, tmp_path):
    config = make_config(activation="relu", loss="mean_ce", timesteps=2, ema=0.0)
    facts = folder.load(trained)[1]
    model = build.network(config, facts)
    untrained(tmp_path, config, facts)
    few = dataset._replace(train=Split(*(array[:64] for array in dataset.train)))
    found, largest = (
        thresholds_of(build.convert(model, config, facts, few, percentile))
        for percentile in (None, 100.0)
    )
    assert len(found) == 3
    assert all(0 < found[place] < largest[place] for place in found)
    result = evaluate(tmp_path, exit="full", method="full", percentile=90.0)
    assert (result["network"], result["timesteps"]) == ("converted", 2)


def test_a_converted_run_is_calibrated_with_a_guarantee(trained_ann, dataset):
    config, facts = folder.load(trained_ann)
    model = convert(load_model(trained_ann, config, facts)[0], facts.image_shape)
    cumulative = np.cumsum(logits_of(model, facts, dataset.validation.images, 4), 1) / 8
    expected = threshold_with_guarantee(
        np.asarray(exits.confidence(cumulative)), cumulative.argmax(-1), 0.2, 0.1, "disagreement"
    )
    result = evaluate(trained_ann, timesteps=4, choice=Risk(0.2))
    found = result["guarantee"]
    assert expected.certified
    assert (found["n"], found["threshold"]) == (150, pytest.approx(expected.threshold))
    assert found["empirical_risk"] == pytest.approx(expected.empirical_risk)
    assert 1 < result["average_timesteps"] < 4


def test_what_a_report_is_not_for_is_named(trained, trained_ann):
    direct = "is of a directly trained spiking network: leave it out"
    for call, match in (
        (lambda: conversion_report(trained), f"`conversion_report` is for a run .* {direct}"),
        (lambda: conversion_report(trained_ann, precision="int8"), "int8 needs spikes of 0 and 1"),
        (lambda: conversion_report(trained_ann, precision="int4"), "unknown precision 'int4'"),
        (lambda: conversion_report(trained_ann, split="dev"), "unknown split 'dev'"),
        (lambda: evaluate(trained_ann, precision="int8"), "`precision` int8 needs spikes of 0 and"),
        (
            lambda: evaluate(trained_ann, ann=True, choice=Given(0.5)),
            r"`threshold`=0\.5 has no meaning for exit 'full'",
        ),
    ):
        with pytest.raises(UserError, match=match):
            call()
