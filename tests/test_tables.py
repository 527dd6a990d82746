"""A row that can't be used is refused in a sentence, where it is added."""

import re

import pytest
from flax import nnx

import seenn_jax
from seenn_jax import Augmentation, Neuron, Precision, UserError
from seenn_jax.models.neurons import SURROGATES
from seenn_jax.plugins import load_plugins
from seenn_jax.tables import check_call, check_given


class NoNetwork(nnx.Module):
    smallest = 2

    def __init__(self, width, *, image_shape, num_classes, neuron, dtype, rngs):
        pass

    def encode(self):
        pass


@pytest.mark.parametrize(
    ("table", "row", "what"),
    [
        (
            "NEURONS",
            lambda config: None,
            "the activation 'mine' is a function: it must be a seenn_",
        ),
        ("NEURONS", Neuron(lambda: None), "`make` of the activation 'mine' takes () and is called"),
        ("MODELS", lambda width: None, "takes (width) and is called with (width, image_shape="),
        ("MODELS", int, "it must give a class of nnx.Module"),
        ("MODELS", nnx.BatchNorm, "is called with (self, width, image_shape=, num_classes=, neur"),
        (
            "MODELS",
            NoNetwork,
            "`encode` of the model 'mine' takes (self) and is called with (self, i",
        ),
        (
            "DATASETS",
            lambda: None,
            "is called with (data_dir=, timesteps=, skip_corrupt=, download=, binning=)",
        ),
        ("LOSSES", lambda logits, targets: 1.0, "takes (logits, targets) and is called with (conf"),
        ("LOSSES", 1.0, "the loss 'mine' is 1.0: it must take (config)"),
        ("OPTIMIZERS", lambda config: None, "is called with (config, schedule)"),
        ("SCHEDULES", lambda peak: peak, "is called with (peak, steps)"),
        ("AUGMENTATIONS", lambda key, x, option: x, "it must be a seenn_jax.Augmentation"),
        ("AUGMENTATIONS", Augmentation("image", lambda k, x, o: x), "did you mean 'images'?"),
        ("AUGMENTATIONS", Augmentation("images", lambda x: x), "called with (key, images, option)"),
        ("PRECISIONS", "float32", "it must be a seenn_jax.Precision"),
        (
            "PRECISIONS",
            Precision(float),
            "`dtype` of the precision 'mine' is a type: it must be a te",
        ),
        ("PRECISIONS", Precision(prepare=lambda: None), "is called with (model)"),
        ("METHODS", lambda network: None, "called with (bound, arguments, options, frame_at)"),
        ("EXITS", lambda: None, "the exit 'mine' takes () and is called with (run)"),
        ("SURROGATES", lambda x: x.sum(), "gives float32[]: it must give spikes, shaped as the x"),
    ],
)
def test_a_row_that_cannot_be(table, row, what):
    rows = SURROGATES if table == "SURROGATES" else getattr(seenn_jax, table)
    with pytest.raises(UserError, match=re.escape(what)):
        rows["mine"] = row
    assert "mine" not in rows


def test_a_plugin_with_such_a_row_is_named(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("from seenn_jax import EXITS\nEXITS['mine'] = lambda: 1\n")
    with pytest.raises(
        UserError, match=r"^the plugin '.*mine\.py' .* fails: the exit 'mine' takes"
    ):
        load_plugins([str(plugin)])
    assert "mine" not in seenn_jax.EXITS


def test_what_can_be_called_is_not_refused():
    check_call("it", lambda x, /, y=1: x, "a")
    check_call("it", lambda *a, **k: a, "a", "b", "c=")
    check_call("it", max, "a", "b")  # of C, of which nothing is known
    check_call("it", lambda a, *, b: a, "anything", "b=")


def test_what_is_given_is_described():
    with pytest.raises(UserError, match=r"^it gives \(None, 2\): it must give three; see docs"):
        check_given("it", (None, 2), lambda x: len(x) == 3, "three")
    with pytest.raises(UserError, match=r"^it gives an object: "):
        check_given("it", object(), lambda x: x.shape == (), "a number")
