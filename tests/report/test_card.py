"""A card says what is measured, of what, and how it came to be."""

from pathlib import Path

import pytest

from seenn_jax.config import default_config
from seenn_jax.report.card import DATA, card
from seenn_jax.run import weights
from tests.report.made_up import made_up

ROOT = Path(__file__).parents[2]


def written(**changes):
    config = default_config()
    config.epochs = 7
    config.model.width = 9
    config.training_levels = (1, 2)
    config.seed = 3
    result = made_up(**changes) | {"network": "spiking", "precision": "bfloat16"}
    origin = {
        "revision": "0123abcd",
        "device": "1 x cpu",
        "versions": {"python": "3.11", "jax": "1"},
    }
    # As it is read from JSON.
    settings = config.to_dict() | {"training_levels": [1, 2]}
    return card(
        result, name="some-name", config=settings, origin=origin, dtype="int8", sha256="ab" * 32
    )


def test_figures_are_those_of_the_result():
    text = written()
    assert text.startswith("# some-name\n")
    assert "resnet8 of width 9" in text
    assert "Kernels are stored in int8." in text
    assert "On the test split (10,000 images)" in text
    assert "inference in bfloat16: accuracy 90.12 % at 1.173 timesteps on average" in text
    assert "confidence threshold 0.629123, chosen on validation: fewest timesteps within" in text
    assert "| 1 | 87.15 % | 87.77 % |\n" in text
    assert "| 4 | 90.41 % | 2.04 % |\n" in text
    assert "the pixels of this copy were JPEG-compressed" in text


def test_how_it_came_to_be():
    text = written()
    assert "Seed 3, step 3,344 (the best on the validation split)" in text
    assert "revision 0123abcd, 1 x cpu, python 3.11, jax 1." in text
    shown = text.partition("```text\n")[2].partition("```")[0]
    assert sorted(shown.splitlines()) == [
        "--config.epochs=7",
        "--config.model.width=9",
        "--config.seed=3",
        "--config.training_levels=(1, 2)",
    ]
    assert f"SHA-256: `{'ab' * 32}`\n" in text


def test_data_are_named_with_their_terms_where_they_are_known():
    assert DATA["cifar10"] in written()
    assert "CC BY 4.0" in written(dataset="digits")
    assert DATA["cifar10"] in written(dataset="cifar10:3.0.2")
    assert "folder:flowers: its source and licence are not known here." in written(
        dataset="folder:flowers"
    )


def test_paths_of_this_machine_stay_here():
    text = written(dataset="/home/me/flowers")
    assert "trained on flowers, T" in text
    assert "flowers: its source and licence are not known here." in text
    assert "/home/me" not in text


@pytest.mark.parametrize("name", weights.names())
def test_cards_that_come_with_the_package_say_what_is_known_of_their_data(name):
    data = weights.read(name).config.data.name
    assert f"## Data\n\n{DATA[data]}.\n" in (ROOT / "weights" / f"{name}.md").read_text()
