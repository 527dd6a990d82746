"""What a loaded run answers for images of a user's own, a stretch at a time."""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from seenn_jax import engine, exits
from seenn_jax.data.files import Files, Frame, find_images, fitted
from seenn_jax.errors import UserError
from seenn_jax.run import build
from seenn_jax.run.folder import DataFacts

STRETCH_BYTES = 2**28  # of images under way at a time, at most ...
STRETCH = 4096  # ... and so many files, so that some are decoded while others are predicted


class Predictions(NamedTuple):
    """What `Predictor.predict` answers.

    Attributes:
      classes: numbers of the predicted classes.
      confidence: the largest softmax probability at the exit.
      timesteps: taken by each sample, from 1.
      names: of the predicted classes; their numbers as text where the data have none.
      files: that the images are of, without those that can't be read; () for an array.
    """

    classes: Int[np.ndarray, "N"]
    confidence: Float[np.ndarray, "N"]
    timesteps: Int[np.ndarray, "N"]
    names: tuple[str, ...]
    files: tuple[str, ...] = ()


def opened(images: Any, config: ConfigDict, facts: DataFacts, timesteps: int) -> Any:
    """Images [N, ...] as the network takes them, of the run's dtype; files are only found so far.

    Args:
      images: as for `Predictor.predict`.

    Raises:
      UserError: images of another shape; a path that is not there, a folder without an image; files
        for a network that does not see images.
    """
    paths = [images] if isinstance(images, str | Path) else images
    if isinstance(paths, list | tuple) and paths and isinstance(paths[0], str | Path):
        frame = frame_of(config, facts)
        return Files(find_images(paths), frame, facts.still or facts.image_shape)
    images = np.asarray(images)
    shape = facts.stored(timesteps)
    if images.shape[1:] != shape or images.dtype not in (np.uint8, facts.dtype):
        raise UserError(
            f"the images are {images.dtype.name}{list(images.shape)}, and this run takes "
            f"{facts.dtype}{['N', *shape]}: bring them to that shape, pixels from 0 to 255"
        )
    return images.astype(facts.dtype, copy=False)


def frame_of(config: ConfigDict, facts: DataFacts) -> Frame:
    """How an image of any size and colour becomes one that the network takes, as in evaluation.

    Raises:
      UserError: a network that does not see images.
    """
    shape = facts.still or facts.image_shape
    if (facts.frames and not facts.still) or shape[-1] not in (1, 3):
        what = "recordings of an event camera" if facts.frames else "images of other channels"
        raise UserError(
            f"files can't be predicted by a network for {what} ({config.data.name}): give an array "
            "to `predict` in Python"
        )
    if config.data.image_size:
        return build.framing(config).middle
    return functools.partial(fitted, image_shape=shape)


def rows_of(images: Any) -> int:
    """How many images a stretch has: a power of two, so that a few programs serve any number."""
    most = max(1, STRETCH_BYTES // int(np.prod(images.shape[1:])))
    if isinstance(images, Files):
        most = min(most, STRETCH)
    return min(1 << (most.bit_length() - 1), 1 << max(0, len(images) - 1).bit_length())


def answers(
    program: Callable[[Any, Any], engine.Exited], images: Any, names: tuple[str, ...]
) -> Iterator[Predictions]:
    """Predictions of each stretch of `images`, by a program compiled for `rows_of` them.

    Raises:
      UserError: a logit that is not finite; files of which none can be read.
    """
    rows = rows_of(images)
    stretches = (images[start : start + rows] for start in range(0, len(images), rows))
    start = 0
    for exited in engine.in_chunks(program, stretches, size=rows):
        exits.check_finite(exited.logits)
        here = range(start, start + len(exited.timesteps))
        start = here.stop
        files: tuple[str, ...] = ()
        if isinstance(images, Files):
            read = [number not in images.unreadable for number in here]
            exited = engine.Exited(exited.logits[read], exited.timesteps[read])
            files = tuple(str(images.paths[number]) for number in np.array(here)[read])
        classes = exited.logits.argmax(-1)
        yield Predictions(
            classes,
            np.asarray(exits.confidence(exited.logits)),
            exited.timesteps,
            tuple(names[number] for number in classes),
            files,
        )
    if isinstance(images, Files) and len(images.unreadable) == len(images):
        raise UserError(
            f"none of the files ({len(images):,}) can be read: give JPEG, PNG, BMP or WebP images"
        )


def joined(parts: list[Predictions]) -> Predictions:
    """The predictions of all stretches as one."""
    if not parts:
        none = np.zeros(0, np.int32)
        return Predictions(none, np.zeros(0, np.float32), none, ())
    classes, confidence, timesteps, names, files = zip(*parts, strict=True)
    return Predictions(
        np.concatenate(classes),
        np.concatenate(confidence),
        np.concatenate(timesteps),
        tuple(itertools.chain.from_iterable(names)),
        tuple(itertools.chain.from_iterable(files)),
    )


def joined_exits(parts: list[engine.Exited]) -> engine.Exited:
    """What exits leave of all images; a UserError for a logit that is not finite."""
    exited = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    exits.check_finite(exited.logits)
    return exited
