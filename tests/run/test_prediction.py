"""Files as a network sees them, and how many at a time."""

from pathlib import Path

import numpy as np
import pytest

from seenn_jax.data.files import Files
from seenn_jax.errors import UserError
from seenn_jax.run import build
from seenn_jax.run.folder import DataFacts
from seenn_jax.run.prediction import joined, opened, rows_of


def test_files_are_cut_as_in_evaluation(make_config, picture, encoded, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            data = encoded(picture(len(name) * i, 20 + i, 33), "PNG")
            (tmp_path / name / f"{i}.png").write_bytes(data)
    of_data = {"name": str(tmp_path), "image_size": 8, "validation": 2}
    for framing in ({}, {"resize": 1.0}, {"resize": 1.0, "interpolation": "nearest"}):
        config = make_config(data={**of_data, **framing})
        dataset = build.dataset(config)
        found = opened(tmp_path, config, DataFacts.of(dataset), config.timesteps)
        seen = {image.tobytes() for image in found[:]}
        for split in (dataset.train, dataset.validation, dataset.test):
            assert {image.tobytes() for image in split.images[:]} <= seen


def test_images_that_become_events_are_given_as_they_are(make_config, picture, encoded, tmp_path):
    config = make_config(data={"encoding": "i2e"}, i2e={"side": 16})
    facts = DataFacts((8, 8, 3), 2, [0.5] * 3, [0.5] * 3).encoded(build.encoding(config), 3)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    assert opened(images, config, facts, 3) is images
    with pytest.raises(UserError, match=r"this run takes uint8\['N', 8, 8, 3\]"):
        opened(np.zeros((2, 3, 16, 16, 2), np.uint8), config, facts, 3)
    (tmp_path / "a.png").write_bytes(encoded(picture(0, 20, 33), "PNG"))
    assert opened(tmp_path, config, facts, 3)[:].shape == (1, 8, 8, 3)


def test_counts_are_taken_in_bytes_where_a_run_has_larger_ones(make_config):
    facts = DataFacts((4, 4, 2), 2, [0] * 2, [1] * 2, frames=3, dtype="uint16")
    for dtype in (np.uint8, np.uint16):
        given = np.ones((2, 3, 4, 4, 2), dtype)
        assert opened(given, make_config(), facts, 3).dtype == np.uint16
    with pytest.raises(UserError, match=r"int32.*this run takes uint16\['N', 3, 4, 4, 2\]"):
        opened(given.astype(np.int32), make_config(), facts, 3)


@pytest.mark.parametrize(
    ("count", "shape", "rows"),
    [
        (1, (8, 8, 1), 1),
        (2, (8, 8, 1), 2),
        (5, (8, 8, 1), 8),  # 6, 7 and 8 images take the same program
        (8, (8, 8, 1), 8),
        (1000, (8, 8, 1), 1024),
        (100_000, (8, 8, 1), 131_072),
        # 2^28 bytes are 1,783 images of this size: 1,024 is the power of two below.
        (100_000, (224, 224, 3), 1024),
        (3, (20_000, 20_000, 3), 1),
    ],
)
def test_a_stretch_is_a_power_of_two_that_fits(count, shape, rows):
    images = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (count, *shape), (0, 0, 0, 0))
    assert rows_of(images) == rows


def test_files_are_few_enough_to_decode_some_while_others_are_predicted():
    assert rows_of(Files([Path("x.png")] * 100_000, np.asarray, (8, 8, 1))) == 4096
    assert rows_of(Files([Path("x.png")] * 100_000, np.asarray, (224, 224, 3))) == 1024


def test_no_parts_are_no_predictions():
    assert [len(values) for values in joined([])] == [0] * 5
