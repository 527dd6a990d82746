import os
import shutil
import subprocess

import jax
import pytest

from seenn_jax import provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    done = subprocess.run(
        ["git", *identity, "-C", folder, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder with the code in it, and in no checkout."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("SEENN_REVISION", raising=False)
    (tmp_path / "package").mkdir()
    file = tmp_path / "package" / "provenance.py"
    file.write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(file))
    return file


@pytest.fixture
def checkout(code):
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    root = code.parents[1]
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--no-gpg-sign", "--message", "first")
    return root


def test_revision_of_a_clean_checkout(checkout):
    revision = provenance.revision()
    assert len(revision) == 12
    assert git(checkout, "rev-parse", "HEAD").startswith(revision)


def test_revision_says_that_files_differ(checkout, code):
    clean = provenance.revision()
    (checkout / "notes.txt").write_text("not part of the code")
    assert provenance.revision() == clean
    code.write_text("two")
    assert provenance.revision() == f"{clean}+changes"
    git(checkout, "add", ".")
    assert provenance.revision() == f"{clean}+changes"


def test_revision_of_a_checkout_is_not_the_environments(checkout, monkeypatch):
    monkeypatch.setenv("SEENN_REVISION", "other")
    assert git(checkout, "rev-parse", "HEAD").startswith(provenance.revision())


@pytest.mark.parametrize("git_installed", [True, False])
@pytest.mark.parametrize(("variable", "expected"), [(None, "unknown"), ("abc123", "abc123")])
def test_revision_without_a_checkout(code, monkeypatch, git_installed, variable, expected):
    if not git_installed:
        monkeypatch.setenv("PATH", os.devnull)
    if variable:
        monkeypatch.setenv("SEENN_REVISION", variable)
    assert provenance.revision() == expected


def test_versions():
    versions = provenance.versions()
    assert set(versions) == {"python", *provenance.PACKAGES}
    assert versions["jax"] == jax.__version__
    assert versions["python"].count(".") == 2


def test_device():
    kind = jax.devices()[0].device_kind
    assert provenance.device() == f"{jax.device_count()} x {kind}"
