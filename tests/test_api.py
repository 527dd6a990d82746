"""The public interface: every name can be imported, and says what it takes."""

import inspect
import subprocess
import sys
import time

import pytest

import seenn_jax
from seenn_jax.tables import Table

TABLES = [name for name in seenn_jax.__all__ if name.isupper()]
FUNCTIONS = [
    name
    for name in seenn_jax.__all__
    if inspect.isroutine(getattr(seenn_jax, name))
    or hasattr(getattr(seenn_jax, name), "lower")  # jitted
]
FUNCTIONS = [name for name in FUNCTIONS if name != "__version__"]
# What can go wrong in them is not theirs to say: they only wrap what they are given.
WITHOUT_ERRORS = {"above", "patience", "prescribed", "never", "default_config", "write_report"}
# They take no arrays.
WITHOUT_SHAPES = {
    *(
        "load",
        "export_weights",
        "train",
        "default_config",
        "write_report",
        "evaluate",
        "above",
        "never",
        "patience",
    ),
}


@pytest.mark.parametrize("name", seenn_jax.__all__)
def test_a_name_can_be_imported_and_is_documented(name):
    value = getattr(seenn_jax, name)
    assert name in dir(seenn_jax)
    if name != "__version__":
        assert inspect.getdoc(value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_states_shapes_and_errors(name):
    function = getattr(seenn_jax, name)
    function = inspect.unwrap(function)
    text = inspect.getdoc(function)
    if name not in WITHOUT_ERRORS:
        assert "Raises:" in text
        assert "UserError" in text
    if name not in WITHOUT_SHAPES:
        annotations = " ".join(map(str, inspect.signature(function).parameters.values()))
        assert "[" in text or "'N" in annotations, text


@pytest.mark.parametrize("name", TABLES)
def test_a_table_names_what_it_knows(name):
    table = getattr(seenn_jax, name)
    assert isinstance(table, Table)
    with pytest.raises(seenn_jax.UserError, match=f"unknown {table.what} 'nonsense'.*known ones"):
        table["nonsense"]
    taken = next(iter(table))
    with pytest.raises(seenn_jax.UserError, match=f"{taken!r} is there already"):
        table[taken] = None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'nonsense'"):
        seenn_jax.nonsense  # noqa: B018


def test_importing_the_package_imports_nothing_slow():
    code = "import sys, seenn_jax; print([m for m in ('jax', 'flax', 'numpy') if m in sys.modules])"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        assert done.stdout.strip() == "[]", done.stderr
    bare = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"])
        bare.append(time.perf_counter() - started)
    assert min(seconds) - min(bare) < 0.2


def test_the_types_are_marked():
    from importlib import resources

    assert resources.files("seenn_jax").joinpath("py.typed").is_file()
