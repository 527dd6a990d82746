"""What is installed: the command, and beside the code the configs and the weights."""

import runpy
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from seenn_jax import paths
from seenn_jax.__main__ import main

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture
def packages(monkeypatch):
    """(packages, their folders) that setup.py gives."""
    setuptools, given = pytest.importorskip("setuptools"), {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return given["packages"], given["package_dir"]


def test_every_folder_of_code_is_a_package(packages):
    names, folders = packages
    code = {path.parent for path in (ROOT / "seenn_jax").rglob("*.py")}
    code = {".".join(path.relative_to(ROOT).parts) for path in code}
    assert set(names) == code | {"seenn_jax.configs", "seenn_jax.weights"}
    assert folders == {"seenn_jax.configs": "configs", "seenn_jax.weights": "weights"}


def test_every_file_of_weights_is_installed(project):
    patterns = project["tool"]["setuptools"]["package-data"]["seenn_jax.weights"]
    for path in (ROOT / "weights").iterdir():
        assert any(fnmatch(path.name, pattern) for pattern in patterns), path


def test_the_command_is_the_module(project):
    module, _, name = project["project"]["scripts"]["seenn-jax"].partition(":")
    assert (module, name) == (main.__module__, main.__name__)


def test_what_is_shipped_is_beside_the_package_or_in_it(monkeypatch, tmp_path):
    assert paths.shipped("configs") == ROOT / "configs"
    (tmp_path / "seenn_jax" / "configs").mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "seenn_jax" / "paths.py"))
    assert paths.shipped("configs") == tmp_path / "seenn_jax" / "configs"
    assert paths.shipped("weights") == tmp_path / "weights"
