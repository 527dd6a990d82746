"""Checks of thresholds, logits and labels, on the host."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int, Real

from seenn_jax.errors import UserError


def check_threshold(value: float | int) -> None:
    """Raise a UserError unless the threshold is within [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(
            f"threshold {value} is outside [0, 1], where exit scores lie: "
            "give one from 0 (leave at once) to 1 (run every timestep)"
        )


def check_finite(logits: Real[ArrayLike, "N ..."]) -> None:
    """Raise a UserError that names the first sample with a NaN or an infinity, if there is one."""
    logits = np.asarray(logits)  # NumPy compiles nothing for a shape of its own
    bad = ~np.isfinite(logits).all(axis=tuple(range(1, logits.ndim)))
    if bad.any():
        raise UserError(
            f"sample {bad.argmax()} (counted from 0) has logits or scores that are NaN or "
            f"infinite, as have {bad.sum()} of {bad.size} samples, and they must be finite: "
            "check this sample's pixels, the checkpoint and the inference dtype"
        )


def check_labels(labels: Int[ArrayLike, "N"] | None, purpose: str) -> None:
    """Raise a UserError if the labels that `purpose` needs are missing (None, or negative)."""
    advice = "use a labelled split, or a criterion or risk that needs no labels"
    if labels is None:
        raise UserError(f"{purpose} needs labels and there are none (None): {advice}")
    unlabelled = np.flatnonzero(np.asarray(labels) < 0)
    if unlabelled.size:
        label = np.asarray(labels)[unlabelled[0]]
        raise UserError(
            f"{purpose} needs labels and sample {unlabelled[0]} (counted from 0) has {label}, "
            f"where 0 or more is a label: {advice}"
        )
