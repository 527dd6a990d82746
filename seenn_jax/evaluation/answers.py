"""Figures of the answers at the exit: by class, which are confused, what confidence is worth."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from seenn_jax import exits
from seenn_jax.engine import Exited
from seenn_jax.exits import Answers

BINS = 15  # of a calibration curve, as in Guo et al. 2017
PAIRS = 400  # confused pairs that are kept: all there can be of 20 classes
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


class PerImage(NamedTuple):
    """What an evaluation knows of each image.

    Attributes:
      labels: classes, as numbers.
      predictions: classes that were answered at the exit.
      timesteps: taken, from 1.
      confidence: the largest softmax probability at each t, as if nobody had left.
    """

    labels: Int[np.ndarray, "N"]
    predictions: Int[np.ndarray, "N"]
    timesteps: Int[np.ndarray, "N"]
    confidence: Float[np.ndarray, "N T"]

    @property
    def right(self) -> Bool[np.ndarray, "N"]:
        """Whether the answers are."""
        return self.predictions == self.labels

    @property
    def sure(self) -> Float[np.ndarray, "N"]:
        """The confidence at the exit."""
        return self.confidence[np.arange(len(self.timesteps)), self.timesteps - 1]


def per_image(answers: Answers, exited: Exited) -> PerImage:
    """What one forward pass and the run with exits have found of each image."""
    cumulative = answers.cumulative
    if cumulative.shape[-1] == 1:  # there is nothing to be unsure of
        confidence = np.ones(cumulative.shape[:-1], np.float32)
    else:
        confidence = np.asarray(exits.confidence(cumulative))
    predictions = np.asarray(exited.logits).argmax(-1)
    return PerImage(answers.labels, predictions, np.asarray(exited.timesteps), confidence)


def counts(times: Int[np.ndarray, "N"], timesteps: int) -> list[int]:
    """How many leave at each t from 1 to T."""
    return np.bincount(times, minlength=timesteps + 1)[1:].tolist()


def by_class(found: PerImage, names: Sequence[str]) -> list[dict]:
    """Of each class: its name, samples, how many are right, and how many leave at each t."""
    exits_at = np.zeros((len(names), found.confidence.shape[1]), int)
    np.add.at(exits_at, (found.labels, found.timesteps - 1), 1)
    right = np.bincount(found.labels[found.right], minlength=len(names))
    return [
        {"class": name, "samples": int(at.sum()), "right": int(good), "exit_counts": at.tolist()}
        for name, at, good in zip(names, exits_at, right, strict=True)
    ]


def mistakes(found: PerImage) -> list[dict[str, int]]:
    """Pairs of a label and a wrong answer, with their count, the most frequent first."""
    wrong = ~found.right
    pairs = np.stack([found.labels[wrong], found.predictions[wrong]], axis=1)
    distinct, number = np.unique(pairs, axis=0, return_counts=True)
    first = np.argsort(-number, kind="stable")[:PAIRS]
    return [
        {"label": int(label), "answer": int(answer), "count": int(n)}
        for (label, answer), n in zip(distinct[first], number[first], strict=True)
    ]


def calibration(
    confidence: Float[np.ndarray, "N"], right: Bool[np.ndarray, "N"], bins: int = BINS
) -> dict:
    """How confidence compares with accuracy, in bins of equal width (Guo et al., ICML 2017).

    Returns:
      bins, each of {samples, confidence, accuracy}: those samples with (m - 1) / M < confidence <=
      m / M, and their means, None where there are none; and ece, the expected calibration error:
      the mean over samples of |accuracy - confidence| of their bin.
    """
    confidence = confidence.astype(float)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    samples = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, minlength=bins) for values in (confidence, right)]
    gap = float(np.abs(sums[1] - sums[0]).sum() / len(confidence))
    rows = [
        {
            "samples": int(n),
            "confidence": float(sure / n) if n else None,
            "accuracy": float(good / n) if n else None,
        }
        for n, sure, good in zip(samples, *sums, strict=True)
    ]
    return {"ece": gap, "bins": rows}


def confidence_by_timestep(
    confidence: Float[np.ndarray, "N T"], correct: Bool[np.ndarray, "N T"]
) -> list[dict[str, list[float] | None]]:
    """At each t the `QUANTILES` of the confidence of right and of wrong answers; None of none."""

    def quantiles(values):
        return np.quantile(values.astype(float), QUANTILES).tolist() if len(values) else None

    return [
        {"right": quantiles(sure[good]), "wrong": quantiles(sure[~good])}
        for sure, good in zip(confidence.T, correct.T, strict=True)
    ]
