"""Weights of an evaluated run, with a card that states what these very weights do."""

from pathlib import Path
from typing import Any

from rich.console import Console

from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.paths import put
from seenn_jax.report.card import card
from seenn_jax.report.words import in_figures
from seenn_jax.run import weights
from seenn_jax.run.inference import load
from seenn_jax.run.trained import Trained


def export(
    path: Path,
    source: str | Path | Trained,
    dtype: str,
    result: dict[str, Any],
    asked: dict[str, Any],
    console: Console,
) -> None:
    """Write the weights of a run to `path`, and their card beside it.

    Where rounding to `dtype` makes it another network, that one is evaluated too, and its exit and
    its figures are those of the file.

    Args:
      source: the run, or weights.
      result: of `evaluate(source, **asked)`.
    """
    trained = weights.in_dtype(weights.opened(source, asked["checkpoint"]), dtype)
    if dtype != "float32":
        result = evaluate(trained, **asked)
        console.print(f"With kernels in {dtype}: {in_figures(result)}.")
    run = load(trained, percentile=asked["percentile"])
    sha256 = weights.export_weights(path, run, dtype=dtype, exit=result)
    written = weights.read(path)
    text = card(
        result,
        name=path.stem,
        config=written.config.to_dict(),
        origin=written.about,
        dtype=dtype,
        sha256=sha256,
    )
    put(path.with_suffix(".md"), text.encode())
    console.print(f"Weights: {path}, and their card {path.with_suffix('.md')}", soft_wrap=True)
