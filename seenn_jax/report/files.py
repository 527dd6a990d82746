"""The files of a report."""

import json
import os
from pathlib import Path
from typing import Any

from seenn_jax.evaluation.details import Details
from seenn_jax.paths import put
from seenn_jax.report.page import page
from seenn_jax.report.pictures import draw_curve, draw_exits, rendered


def write_report(
    result: dict[str, Any], folder: str | os.PathLike[str], details: Details | None = None
) -> Path:
    """Write result.json, curve.png, exits.png and report.html into `folder`, made if need be.

    Each file is put in place whole or not at all, result.json last. report.html needs nothing
    beside it.

    Args:
      result: of `evaluate`.
      details: what it hands to its own `details`; without them the page has no images, no training
        curves and no config.

    Returns: the path of report.html.
    Raises: ValueError if a figure of `result` is NaN or infinite, before anything is written.
    """
    as_json = json.dumps(result, indent=2, allow_nan=False) + "\n"
    html = page(result, details)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / "curve.png", rendered(draw_curve(result), format="png", dpi=160))
    put(folder / "exits.png", rendered(draw_exits(result), format="png", dpi=160))
    put(folder / "report.html", html.encode())
    put(folder / "result.json", as_json.encode())
    return folder / "report.html"
