"""A loaded run is the one that was trained, and predicts as it was evaluated."""

import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from PIL import Image

import seenn_jax
from seenn_jax import engine, exits
from seenn_jax.data import load_dataset
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits import Given, Risk, Target, Tolerance
from seenn_jax.exits.prices import split_outputs
from seenn_jax.models import conversion
from seenn_jax.models.neurons import IF, LIF
from seenn_jax.run import checkpoints, folder, prediction, stored
from seenn_jax.run.inference import load
from tests.evaluation.plain import at_exit, cumulative_of, logits_of, streaks_of
from tests.run.untrained import untrained

T = 3  # of `trained`
KEPT = {
    "exit": "confidence",
    "threshold": 0.4,
    "threshold_rule": "as given",
    "temperatures": None,
    "timesteps": T,
}


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits", validation=150)


@pytest.fixture(scope="module")
def cumulative(trained, dataset):
    """Cumulative logits [360, T, 10] of the test split."""
    return cumulative_of(trained, dataset.test.images, T)


@pytest.fixture(scope="module")
def predictor(trained):
    return load(trained)


@pytest.fixture(scope="module")
def ann(trained, make_config, tmp_path_factory):
    """A run of an ordinary network with QCFS activations."""
    config = make_config(activation="qcfs", loss="mean_ce", inherit_epochs=0)
    workdir = tmp_path_factory.mktemp("runs") / "ann"
    return untrained(workdir, config, folder.load(trained)[1])


def check_predictions(found, cumulative, times):
    """The answers at these exit times, and their confidence."""
    logits = cumulative[np.arange(len(times)), times - 1]
    np.testing.assert_array_equal(found.timesteps, times)
    np.testing.assert_array_equal(found.classes, logits.argmax(-1))
    confidence = np.exp(logits - logits.max(-1, keepdims=True))
    confidence = 1 / confidence.sum(-1)
    np.testing.assert_allclose(found.confidence, confidence, rtol=1e-5)


# --- Loading ---------------------------------------------------------------------------------


def test_the_best_checkpoint_is_loaded(trained, predictor):
    assert predictor.step == checkpoints.best_step(trained)
    average = stored.arrays(trained, predictor.step)["average.0.head.kernel"]
    np.testing.assert_array_equal(predictor.model.head.kernel[...], average)
    assert (predictor.workdir, predictor.kind, predictor.timesteps) == (trained, "spiking", T)
    assert predictor.precision == "float32"
    assert seenn_jax.load is load
    assert str(load(str(trained)).workdir) == str(trained)


def test_an_ann_is_converted_unless_it_is_asked_for(ann):
    spiking, ordinary = load(ann, timesteps=5), load(ann, ann=True)
    assert (spiking.kind, spiking.timesteps) == ("converted", 5)
    assert isinstance(spiking.model.blocks[0].neuron1, IF)
    np.testing.assert_array_equal(spiking.temperatures, [conversion.EXIT_TEMPERATURE] * 5)
    assert (ordinary.kind, ordinary.timesteps, ordinary.temperatures) == ("ANN", 1, None)
    assert not isinstance(ordinary.model.blocks[0].neuron1, IF | LIF)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bfloat16", "bfloat16"), ("float32", "float32"), ("int8", "float32")]
)
def test_the_precision_of_inference(trained, precision, dtype):
    run = load(trained, precision=precision)
    assert (run.precision, run.config.model.dtype) == (precision, dtype)
    in_int8 = [leaf for leaf in jax.tree.leaves(run.network.params) if leaf.dtype == np.int8]
    assert bool(in_int8) == (precision == "int8")


def test_what_a_network_is_not_for_is_named(trained, ann):
    direct = "is of a directly trained spiking network: leave it out"
    for workdir, arguments, match in (
        (trained, {"ann": True}, f"`ann` is for a run .* {direct}"),
        (trained, {"percentile": 99.0}, r"`percentile`=99\.0 is for .*'lif': leave"),
        (ann, {"percentile": 99.0}, r"`percentile`=99\.0 is for .*'qcfs': leave"),
        (ann, {"precision": "int8"}, "`precision` int8 needs spikes of 0 and 1"),
        (trained, {"precision": "int4"}, "unknown precision 'int4': .*did you mean 'int8'"),
        (ann, {"timesteps": 0}, "`timesteps` is 0: it must be at least 1"),
    ):
        with pytest.raises(UserError, match=match):
            load(workdir, **arguments)


def test_a_checkpoint_of_another_architecture_is_named(copy_of_trained, contents):
    path = copy_of_trained / "run.json"
    content = json.loads(path.read_text())
    content["config"]["model"]["width"] = 6
    del content["checksum"]
    path.write_text(json.dumps(content))
    before = contents(copy_of_trained)
    match = r"average\.0\.blocks\.0\.conv1\.bn\.bias is \(6,\) .* has it as \(16,\); use the config"
    with pytest.raises(UserError, match=match):
        load(copy_of_trained)
    assert contents(copy_of_trained) == before


def test_a_run_without_a_checkpoint_is_named(copy_of_trained, tmp_path):
    written = copy_of_trained / "checkpoints"
    shutil.rmtree(written)
    with pytest.raises(UserError, match="copy has no checkpoint yet: train it with"):
        load(copy_of_trained)
    # One that was being written when the process was killed is none.
    (written / "40.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(UserError, match="copy has no checkpoint yet"):
        load(copy_of_trained)
    with pytest.raises(UserError, match="nowhere holds no run"):
        load(tmp_path / "nowhere")


# --- Predicting ------------------------------------------------------------------------------


def test_it_predicts_as_it_was_evaluated(copy_of_trained, dataset, cumulative):
    result = evaluate(copy_of_trained, choice=Target(2.0))
    folder.keep_exit(copy_of_trained, result)
    found = load(copy_of_trained).predict(dataset.test.images)
    correct = cumulative.argmax(-1) == dataset.test.labels[:, None]
    scores = np.array(exits.confidence(cumulative))
    _, times = at_exit(scores, correct, np.float32(result["threshold"]))
    assert 1 < times.mean() < T
    check_predictions(found, cumulative, times)
    assert np.mean(found.classes == dataset.test.labels) == result["accuracy"]
    assert found.timesteps.mean() == result["average_timesteps"]


def test_one_program_serves_all_values_of_an_exit(trained, dataset, cumulative, monkeypatch):
    monkeypatch.setattr(engine, "run_network", chex.assert_max_traces(engine.run_network, n=1))
    predictor, images, cumulative = load(trained), dataset.test.images[:20], cumulative[:20]
    surest = np.sort(exits.confidence(cumulative[:, 0]))
    between = ((surest[1:] + surest[:-1]) / 2).tolist()
    for value in (between[5], between[15], 0, 1.0):
        found = predictor.predict(images, exit="confidence", choice=Given(value))
        check_exits(found, cumulative, value)
    with pytest.raises(AssertionError, match="traced"):  # it does count
        predictor.predict(images, exit="full")


def check_exits(found, cumulative, threshold):
    """Predictions of an exit by confidence."""
    scores = np.array(exits.confidence(cumulative))
    check_predictions(found, cumulative, at_exit(scores, scores > 0, np.float32(threshold))[1])


def test_one_program_serves_all_temperatures(trained, dataset, cumulative, monkeypatch):
    monkeypatch.setattr(engine, "run_network", chex.assert_max_traces(engine.run_network, n=1))
    predictor, images, cumulative = load(trained), dataset.test.images[:20], cumulative[:20]
    exit, all_times = exits.EXITS["confidence"](predictor), set()
    for temperatures in ([0.5, 4.0, 1.0], [4.0, 0.5, 1.0], np.ones(T)):
        temperatures = np.float32(temperatures)
        (found,) = predictor.stream(images, exit, exits.Chosen(0.4, ""), temperatures)
        check_exits(found, cumulative / temperatures[:, None], 0.4)
        all_times.add(tuple(found.timesteps))
    assert len(all_times) == 3


def test_the_exit_that_was_kept_has_its_temperatures(copy_of_trained, dataset, cumulative):
    temperatures = [0.5, 4.0, 1.0]
    folder.keep_exit(copy_of_trained, KEPT | {"temperatures": temperatures})
    found = load(copy_of_trained).predict(dataset.test.images)
    scaled = cumulative / np.float32(temperatures)[:, None]
    scores = np.array(exits.confidence(scaled))
    times = at_exit(scores, scores > 0, np.float32(0.4))[1]
    # They decide: without them other samples leave.
    plain = np.array(exits.confidence(cumulative))
    assert (times != at_exit(plain, plain > 0, np.float32(0.4))[1]).any()
    check_predictions(found, scaled, times)


def test_an_exit_and_a_choice_of_one_s_own(predictor, dataset, cumulative):
    images = dataset.test.images
    streaks = streaks_of(cumulative.argmax(-1))
    scores = np.array(exits.margin(cumulative))
    for exit, choice, times in (
        ("full", None, np.full(360, T)),
        ("patience", Given(2), at_exit(streaks, streaks > 0, 1)[1]),
        ("margin", Given(0.3), at_exit(scores, scores > 0, np.float32(0.3))[1]),
    ):
        found = predictor.predict(images, exit=exit, choice=choice)
        check_predictions(found, cumulative, times)
        assert exit == "full" or 1 < times.mean() < T
    # Any number of images, a list of them too; the exit's default is chosen on the validation split
    # as in an evaluation.
    result = evaluate(predictor.workdir)
    scores = np.array(exits.confidence(cumulative))
    times = at_exit(scores, scores > 0, np.float32(result["threshold"]))[1]
    few = predictor.predict(list(images[:5]), exit="confidence")
    check_predictions(few, cumulative[:5], times[:5])


def test_a_policy_predicts(trained_policy, dataset):
    images = dataset.test.images
    config, facts = folder.load(trained_policy)
    policy = checkpoints.load_policy(trained_policy, config, facts)
    chosen = np.asarray(split_outputs(logits_of(policy, facts, images, 1)[:, 0], 2)[0])
    cumulative = cumulative_of(trained_policy, images, T)
    run = load(trained_policy)
    for choice, price in ((None, 0), (Given(0.3), 0.3)):
        prices = chosen - price * np.array([1, 3])
        times = np.where(prices[:, 0] >= prices[:, 1], 1, 3)
        check_predictions(run.predict(images, exit="policy", choice=choice), cumulative, times)


def test_an_ann_predicts(ann, dataset):
    config, facts = folder.load(ann)
    images = dataset.test.images
    logits = logits_of(checkpoints.load_model(ann, config, facts)[0], facts, images, 1)
    found = load(ann, ann=True).predict(images, exit="full")
    check_predictions(found, logits, np.ones(360, int))


def test_event_data_are_predicted(on_events):
    run = load(on_events[0])
    images = run.dataset.test.images
    found = run.predict(images, exit="full")
    check_predictions(
        found, cumulative_of(on_events[0], images, 3), np.full(len(images), run.timesteps)
    )
    for wrong in (images[:, 0], images[:, :2]):
        with pytest.raises(UserError, match=r"takes uint8\['N', 3, \d+, \d+, 2\]: bring them to"):
            run.predict(wrong, exit="full")


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (np.zeros((2, 8, 8), np.uint8), r"uint8\[2, 8, 8\]"),
        (np.zeros((8, 8, 1), np.uint8), r"uint8\[8, 8, 1\]"),
        (np.zeros((2, 9, 8, 1), np.uint8), r"uint8\[2, 9, 8, 1\]"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"uint8\[2, 8, 8, 3\]"),
        (np.zeros((2, 8, 8, 1), np.float32), r"float32\[2, 8, 8, 1\]"),
        ([], r"float64\[0\]"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(np.shape(value)),
)
def test_images_of_a_wrong_shape_are_named(predictor, images, named):
    allowed = r"this run takes uint8\['N', 8, 8, 1\]: bring them to that shape, pixels from 0 to"
    with pytest.raises(UserError, match=f"the images are {named}, and {allowed}"):
        predictor.predict(images, exit="full")


def test_no_image_is_no_prediction(predictor):
    found = predictor.predict(np.zeros((0, 8, 8, 1), np.uint8), exit="full")
    assert [len(values) for values in found] == [0, 0, 0, 0, 0]


def test_no_evaluation_yet_is_named(predictor):
    match = r"tiny has not been evaluated yet, .*: run python evaluate\.py --workdir=.*tiny, or say"
    with pytest.raises(UserError, match=match):
        predictor.predict(np.zeros((1, 8, 8, 1), np.uint8))


def test_an_exit_for_other_timesteps_is_named(copy_of_trained):
    folder.keep_exit(copy_of_trained, KEPT)
    match = "`timesteps` is 2 and the exit of .*copy was chosen for 3: give that, or say which"
    with pytest.raises(UserError, match=match):
        load(copy_of_trained, timesteps=2).predict(np.zeros((1, 8, 8, 1), np.uint8))


@pytest.mark.parametrize(
    ("exit", "choice", "match"),
    [
        ("confidense", None, "unknown exit 'confidense': .*did you mean 'confidence'"),
        ("policy", None, "exit 'policy' needs a run with a policy"),
        ("confidence", Given(1.5), r"threshold 1\.5 is outside \[0, 1\]"),
        ("confidence", Tolerance(1.0), r"`tolerance` is 1\.0"),
        ("patience", Given(4), "from 1 to T = 3"),
        ("patience", Risk(0.1), "no grid of thresholds for `risk`"),
        ("full", Given(0.5), r"`threshold`=0\.5 has no meaning"),
    ],
    ids=str,
)
def test_an_exit_that_cannot_be_is_named(predictor, exit, choice, match):
    with pytest.raises(UserError, match=match):
        predictor.predict(np.zeros((1, 8, 8, 1), np.uint8), exit=exit, choice=choice)


def test_a_choice_without_an_exit_is_for_the_run_s_own(copy_of_trained, dataset, cumulative):
    folder.keep_exit(copy_of_trained, KEPT)
    run, images = load(copy_of_trained), dataset.test.images
    scores = np.array(exits.confidence(cumulative))
    times = at_exit(scores, scores > 0, np.float32(0.3))[1]
    check_predictions(run.predict(images, choice=Given(0.3)), cumulative, times)
    with pytest.raises(UserError, match=r"threshold 1\.5 is outside"):
        run.predict(images, choice=Given(1.5))


# --- Files -----------------------------------------------------------------------------------


@pytest.fixture
def pngs(dataset, tmp_path):
    """A folder with the first five images of the test split."""
    folder = tmp_path / "pngs"
    folder.mkdir()
    for number, image in enumerate(dataset.test.images[:5]):
        Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
    return folder


def test_files_are_predicted_as_their_pixels(predictor, dataset, pngs, monkeypatch):
    monkeypatch.setattr(prediction, "STRETCH", 2)  # two at a time, the last one alone
    asked = {"exit": "confidence", "choice": Given(0.25)}
    wanted = predictor.predict(dataset.test.images[:5], **asked)
    files = tuple(str(pngs / f"{number}.png") for number in range(5))
    for images in (pngs, str(pngs), [pngs], list(files)):
        found = predictor.predict(images, **asked)
        assert found.files == files
        for name in ("classes", "timesteps", "names"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        np.testing.assert_allclose(found.confidence, wanted.confidence, rtol=1e-5)
    assert wanted.names == tuple(str(number) for number in wanted.classes)
    assert wanted.files == ()
    assert len(set(found.timesteps)) > 1


def test_what_cannot_be_read_is_left_out(predictor, pngs, caplog):
    whole = predictor.predict(pngs, exit="full")
    (pngs / "2.png").write_bytes((pngs / "2.png").read_bytes()[:40])
    found = predictor.predict([pngs / "4.png", pngs], exit="full")
    assert [Path(file).stem for file in found.files] == ["4", "0", "1", "3", "4"]
    np.testing.assert_array_equal(found.classes, whole.classes[[4, 0, 1, 3, 4]])
    assert caplog.text.count("left out: image ") == 1
    assert str(pngs / "2.png") in caplog.text
    with pytest.raises(UserError, match=r"none of the files \(1\) can be read: give JPEG"):
        predictor.predict(pngs / "2.png", exit="full")


def test_files_of_a_streamed_run_are_cut_as_in_evaluation(trained_on_imagenet, tmp_path):
    run = load(trained_on_imagenet)
    stream = run.dataset.test
    paths = [tmp_path / f"{number}.jpg" for number in range(stream.size)]
    for path, index in zip(paths, stream.indices.tolist(), strict=True):
        path.write_bytes(stream.source[index].data)
    images = run.opened(paths)
    assert images.shape == stream.images.shape
    np.testing.assert_array_equal(images[:], stream.images[:])


def test_event_data_do_not_come_from_image_files(trained_on_events, pngs):
    match = "files can't be predicted by a network for recordings of an event camera"
    with pytest.raises(UserError, match=match):
        load(trained_on_events[0]).predict(pngs, exit="full")
