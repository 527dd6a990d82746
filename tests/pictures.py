"""Fixtures of images: files of them, and data sets as TFDS prepares them."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image


@pytest.fixture(scope="session")
def picture():
    """`(number, height, width) -> image`, smooth, unlike any other number's."""

    def draw(number, height=24, width=32):
        coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height)))

    return draw


@pytest.fixture(scope="session")
def encoded():
    """`(image, format) -> bytes of its file`; a NumPy array or Pillow's image."""

    def encode(image, format="JPEG"):
        file = io.BytesIO()
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(file, format)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def prepare_official():
    """`(data folder, TFDS name, {split: examples})`: prepare a data set as TFDS itself does.

    Version, features and files are the official ones, the examples are not.
    """

    def prepare(data_dir, name, splits):
        official = tfds.builder_cls(name)

        class Prepared(official, skip_registration=True):
            # Of no package: TFDS would look for files of one (`tests`, once it is imported).
            __module__ = "prepared"

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(rows) for split, rows in splits.items()}

            def _generate_examples(self, rows):
                yield from enumerate(rows)

        Prepared.name = name
        tfds.disable_progress_bar()
        Prepared(data_dir=data_dir, file_format="array_record").download_and_prepare()

    return prepare


@pytest.fixture(scope="session")
def imagenet(made_once, prepare_official, picture, encoded):
    """A folder with a tiny imagenet2012: 40, 8 and 3 images, the last of the test split."""

    def rows(numbers, labelled=True):
        for i in numbers:
            image = encoded(picture(i, 20 + i % 7, 30))
            yield {"file_name": f"n{i}.JPEG", "image": image, "label": i % 5 if labelled else -1}

    splits = {
        "train": rows(range(40)),
        "validation": rows(range(40, 48)),
        "test": rows(range(3), labelled=False),
    }
    return made_once("images", lambda folder: prepare_official(folder, "imagenet2012", splits))
