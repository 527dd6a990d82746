"""The notebook is clean, and runs from its first cell to its last without TensorFlow."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import made_cifar

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "seenn_colab.ipynb"
TINY = "--config.epochs=2 --config.model.width=4 --config.timesteps=2"
CIFAR_TINY = (
    f"{TINY} --config.inherit_epochs=1 --config.model.name=resnet8 --config.model.dtype=float32 "
    "--config.batch_size=20 --config.data.validation=40 --config.augment.autoaugment=false"
)
SETTINGS = ["REPOSITORY", "FOLDER", "ACCELERATOR", "DIGITS_FLAGS", "CIFAR10_FLAGS"]

# Python runs it when it starts. Hidden and not only broken: others look whether it is there.
HIDES_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder


class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "tensorflow" else super().find_spec(name, path, target)


sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture(scope="module")
def cells():
    return json.loads(NOTEBOOK.read_text())["cells"]


def code_of(cells, *tags):
    """{number: the source} of cells of code; with tags, of those that have one."""
    return {
        number: "".join(cell["source"])
        for number, cell in enumerate(cells)
        if cell["cell_type"] == "code"
        and (not tags or {*tags} & {*cell["metadata"].get("tags", [])})
    }


def set_to(source, name, value):
    """A cell with a form, once a value is chosen there."""
    new, count = re.subn(rf"^{name} = .*?(?=  # @param)", f"{name} = {value!r}", source, flags=re.M)
    assert count == 1, name
    return new


def test_the_file_is_clean(cells):
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        code = cell["cell_type"] == "code"
        assert code or cell["cell_type"] == "markdown"
        assert {*cell} - {"outputs", "execution_count"} == {"cell_type", "id", "metadata", "source"}
        if code:
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_no_cell_takes_the_accelerator(cells):
    for source in code_of(cells).values():
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (getattr(node, "module", None), *(alias.name for alias in node.names))
            if name
        }
        assert not imported & {"jax", "flax", "seenn_jax", "tensorflow"}


def test_one_form_asks_for_all_settings(cells):
    forms = {n: source for n, source in code_of(cells).items() if "# @" in source}
    assert forms == code_of(cells, "settings")
    (form,) = forms.values()
    assert form.startswith("# @title ")
    assert re.findall(r"^(\w+) = .*# @param", form, re.M) == SETTINGS


class TestFunctions:
    @pytest.fixture
    def functions(self, cells, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("COLAB_TPU_1VM", "TPU_ACCELERATOR_TYPE"):
            monkeypatch.delenv(name, raising=False)
        (source,) = code_of(cells, "functions").values()
        names = {}
        exec(compile(source, str(NOTEBOOK), "exec"), names)
        return names

    def test_a_repository_is_asked_for_where_there_is_no_checkout(self, functions):
        with pytest.raises(RuntimeError, match="REPOSITORY is empty: give the address"):
            functions["enter_checkout"]("")

    @pytest.mark.parametrize("place", [".", "..", "seenn_jax"])
    def test_a_checkout_is_entered(self, functions, tmp_path, monkeypatch, place):
        here = tmp_path / "a"
        here.mkdir()
        monkeypatch.chdir(here)
        (here / place / "configs").mkdir(parents=True)
        (here / place / "configs" / "cifar10_colab.py").touch()
        functions["enter_checkout"]("not cloned")
        assert Path.cwd() == (here / place).resolve()

    @pytest.mark.parametrize("variable", ["COLAB_TPU_1VM", "TPU_ACCELERATOR_TYPE"])
    def test_a_tpu_is_what_colab_says(self, functions, monkeypatch, variable):
        monkeypatch.setenv(variable, "1")
        assert functions["accelerator"]() == "tpu"

    def test_a_gpu_has_the_driver_s_program(self, functions, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert functions["accelerator"]() == "cpu"
        program = tmp_path / "nvidia-smi"
        program.touch()
        program.chmod(0o755)
        assert functions["accelerator"]() in ("cuda12", "cuda13")

    def test_a_command_that_fails_stops_the_cell(self, functions, capfd):
        with pytest.raises(RuntimeError, match="-c ended with 3; what it said is above"):
            functions["run"](sys.executable, "-c", "print('why'); raise SystemExit(3)")
        assert capfd.readouterr().out == "why\n"

    def test_a_cell_that_is_stopped_ends_its_command(self, functions):
        begun = []

        def stop(line, **_):
            begun.append(int(line))
            raise KeyboardInterrupt

        functions["print"] = stop
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        with pytest.raises(KeyboardInterrupt):
            functions["run"](sys.executable, "-c", code)
        with pytest.raises(ProcessLookupError):
            os.kill(*begun, 0)


@pytest.fixture
def repository(tmp_path):
    """A repository of the files as they are here."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("train.py", "evaluate.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("seenn_jax", "configs", "weights"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "As it is"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    return folder


@pytest.fixture
def on_colab(tmp_path, environment, monkeypatch):
    """The environment of a Colab without TensorFlow, to which CIFAR-10 was downloaded: a small one.

    pip finds all it asks for here; it has no network.
    """
    (tmp_path / "hides").mkdir()
    (tmp_path / "hides" / "sitecustomize.py").write_text(HIDES_TENSORFLOW)
    cache = tmp_path / "cache" / "seenn_jax"
    cache.mkdir(parents=True)
    monkeypatch.setattr(made_cifar, "EACH", 20)
    made_cifar.packed(cache, "cifar10", "binary")
    changed = {
        "COLAB_RELEASE_TAG": "release-colab",
        "PIP_NO_INDEX": "1",
        "PYTHONPATH": str(tmp_path / "hides"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TFDS_DATA_DIR": str(tmp_path / "data"),
    }
    for name, value in (environment | changed).items():
        monkeypatch.setenv(name, value)
    looks = "import importlib.util; print(importlib.util.find_spec('tensorflow'))"
    found = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True)
    assert found.stdout == "None\n"


def said_by(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def shown_by(cell):
    return {kind for output in cell.outputs for kind in output.get("data", {})}


@pytest.mark.slow
@pytest.mark.usefixtures("on_colab")
def test_all_cells_run(tmp_path, repository):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebook`")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `notebook`")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    (number,) = code_of(notebook.cells, "settings")
    chosen = [repository.as_uri(), str(tmp_path / "kept"), "cpu", TINY, CIFAR_TINY]
    for name, value in zip(SETTINGS, chosen, strict=True):
        notebook.cells[number].source = set_to(notebook.cells[number].source, name, value)
    content = tmp_path / "content"
    content.mkdir()
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": content}}
    ).execute()

    assert (content / "seenn_jax" / ".git").is_dir()
    head = ["git", "-C", repository, "rev-parse", "--short=12", "HEAD"]
    revision = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    for name, images in (("digits", 360), ("cifar10_colab", 20)):
        run = tmp_path / "kept" / name
        result = json.loads((run / "evaluation" / "confidence" / "result.json").read_text())
        assert (result["num_samples"], result["revision"]) == (images, revision)
    said = [said_by(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert any(re.search(r"^jax [\d.]+ on \[CpuDevice", text, re.M) for text in said)
    (predicted,) = (text for text in said if "8 images; " in text)
    assert all(f"images/{number}.png" in predicted for number in range(8))
    shown = [shown_by(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert sum({"image/png", "text/html"} <= kinds for kinds in shown) == 2
    assert not any("tensorflow" in text.lower() or "\x1b" in text for text in said)
    assert os.listdir(content) == ["seenn_jax"]
