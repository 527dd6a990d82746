"""The shape of the package: small files and functions, imports one way, exits in one place."""

import ast
import graphlib
from pathlib import Path

import pytest

import seenn_jax

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "seenn_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
FILES = [*MODULES, ROOT / "train.py", ROOT / "evaluate.py"]
# From the bottom to the top: a module may import what is below it, and its own package.
FLOORS = (
    ("errors", "provenance", "config"),
    ("tables", "devices", "hosts", "paths"),
    ("plugins", "ticks"),
    ("models", "data", "exits"),
    ("energy", "engine", "memory"),
    ("run",),
    ("serving", "training", "evaluation", "interop"),
    ("report",),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def tree(path):
    return ast.parse(path.read_text())


def imported(path):
    """The modules of the package that a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("seenn_jax."))
        elif (
            isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("seenn_jax")
        ):
            for alias in node.names:
                inner = PACKAGE.joinpath(*node.module.split(".")[1:], alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def name_of(path):
    parts = ["seenn_jax", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"


def test_imports_go_one_way():
    for path in MODULES:
        module = name_of(path)
        if module == "seenn_jax":
            continue  # the public interface, which imports by name when it is asked
        own = module.split(".")[1]
        for other in imported(path):
            if other == "seenn_jax":
                continue
            theirs = other.split(".")[1]
            assert theirs == own or FLOOR[theirs] < FLOOR[own], f"{module} imports {other}"


def test_imports_have_no_circle():
    graph = {}
    for path in MODULES:
        module = name_of(path)
        # A package's own __init__ runs before its modules, and imports them: that is no circle.
        graph[module] = {
            m for m in imported(path) if m != module and not module.startswith(f"{m}.")
        }
    graph = {m: {o for o in others if not _is_package_of(o, m)} for m, others in graph.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def _is_package_of(package, module):
    return module.startswith(f"{package}.")


def test_no_exit_is_known_by_name_but_where_they_live():
    names = {*seenn_jax.EXITS}
    for path in FILES:
        place = path.relative_to(ROOT).parts
        if "exits" in place or place[-2:] == ("report", "words.py"):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare):
                compared = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)} & names
                about_exits = any(
                    isinstance(n, ast.Name | ast.Attribute | ast.Subscript)
                    and "exit" in ast.unparse(n).lower()
                    for n in ast.walk(node)
                )
                assert not (compared and about_exits), f"{path}:{node.lineno}"
