"""The notebook runs from its first cell to CIFAR-10, whose data are not here."""

import json
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebook`")
nbclient = pytest.importorskip("nbclient", reason="needs the extra `notebook`")
ROOT = Path(__file__).parent.parent
TINY = ["--config.epochs=2", "--config.model.width=4", "--config.timesteps=2"]


@pytest.mark.slow
def test_the_notebook_up_to_cifar10(tmp_path, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("train.py", "evaluate.py"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("seenn_jax", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    notebook = nbformat.read(ROOT / "notebooks" / "seenn_colab.ipynb", as_version=4)
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept clean
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    )
    parameters.source = f"DIGITS_FLAGS = {TINY}"
    del notebook.cells[tags.index(["cifar10"]) :]
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute()

    result = json.loads((tmp_path / "runs/digits/evaluation/confidence/result.json").read_text())
    *_, last = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert any("image/png" in output.get("data", {}) for output in last.outputs)
    said = "".join(output.get("text", "") for output in last.outputs)
    assert f"{result['accuracy']:.2%} at {result['average_timesteps']:.3f} timesteps" in said
