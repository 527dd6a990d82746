"""README.md and docs/: their code runs, their links lead to files, and README.md is short."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

import seenn_jax
from seenn_jax.data import digits
from seenn_jax.tables import ALL

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# Commands of README.md that are not run here, by how they begin.
NOT_RUN = {
    "python -m seenn_jax predict": "takes images of the reader's own",
    "python -m seenn_jax serve": "does not end",
}
# Blocks of Python that are not run here, by page and by what is in them.
NOT_RUN_IN_PYTHON = {
    ("coming-from.md", "load_official"): "needs a checkpoint of the official code",
}
# The smallest settings that train.
TINY = (
    *("--config.epochs=1", "--config.timesteps=2"),
    *("--config.model.name=one_block", "--config.model.width=8"),
)


def blocks(page, language):
    """The blocks of code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """The shell commands of a page, a line each, without their comments."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def python_of(page):
    """The blocks of Python of a page that are to be run."""
    left_out = [part for name, part in NOT_RUN_IN_PYTHON if name == page.name]
    found = blocks(page, "python")
    for part in left_out:
        assert any(part in block for block in found), f"nothing of {page.name} has {part!r}"
    return [block for block in found if not any(part in block for part in left_out)]


@pytest.fixture
def tables():
    """The tables, which are as they were after the test."""
    for name in seenn_jax.__all__:
        getattr(seenn_jax, name)  # a table is among them once its module is imported
    before = {name: dict(table) for name, table in ALL.items()}
    yield ALL
    for name, rows in before.items():
        ALL[name].clear()
        ALL[name].update(rows)


# --- README.md -----------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 130


def test_the_readme_has_a_place_for_results():
    text = README.read_text()
    assert text.count("<!-- results: begin -->\n") == text.count("<!-- results: end -->\n") == 1
    assert text.index("<!-- results: begin -->") < text.index("<!-- results: end -->")


@pytest.mark.slow
def test_the_commands_of_the_readme_run(program, tmp_path):
    run = tmp_path / "digits"
    not_run, there = set(), commands(README)
    for command in there:
        reasons = [begin for begin in NOT_RUN if command.startswith(begin)]
        if reasons:
            not_run.update(reasons)
            continue
        python, script, *arguments = shlex.split(command, comments=True)
        assert python == "python", command
        tiny = TINY if script == "train.py" else ()
        status, _, err = program(script, *arguments, f"--workdir={run}", *tiny)
        assert status == 0, f"{command}: {err}"
    assert not_run == set(NOT_RUN)
    assert len(there) > len(not_run)


def test_what_the_readme_shows_is_what_evaluate_prints(program, copy_of_trained):
    _, out, _ = program("evaluate.py", f"--workdir={copy_of_trained}")
    shown = "".join(blocks(README, "text"))
    for words in ("static accuracy", "share of exits", "timesteps on average (T = "):
        assert words in shown
        assert words in out


def test_every_config_is_in_the_readme():
    text = README.read_text()
    for config in (ROOT / "configs").glob("*.py"):
        assert f"`{config.name}`" in text, config


# --- Python --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "adding.md" and blocks(page, "python")],
    ids=lambda page: page.name,
)
def test_the_python_of_a_page_runs(page, program, trained, tmp_path, monkeypatch):
    run = Path(shutil.copytree(trained, tmp_path / "runs" / "digits"))
    assert program("evaluate.py", f"--workdir={run}")[0] == 0  # it has an exit of its own then
    monkeypatch.chdir(tmp_path)
    # What the reader has: images such as those that the run was trained on.
    names = {"images": digits.still()[1].images[:20]}
    for block in python_of(page):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.slow
def test_each_snippet_of_adding_works(make_config, call_train, tmp_path, tables):
    plugins, config_file = [], None
    for number, block in enumerate(blocks(ROOT / "docs" / "adding.md", "python")):
        path = tmp_path / f"snippet{number}.py"
        path.write_text(block)
        if "get_config" in block:
            config_file = path
        else:
            plugins.append(str(path))
    before = {name: set(table) for name, table in tables.items()}
    config = make_config(
        plugins=tuple(plugins),
        activation="half_lif",
        loss="last_tick",
        model={"name": "resnet6"},
        data={"name": "light"},
        optimizer={"name": "lion", "schedule": "constant", "learning_rate": 0.001},
        augment={"noise": 0.1},
        epochs=1,
        timesteps=2,
        inherit_epochs=0,
    )
    call_train(config, tmp_path / "run")
    added = {name for name, table in tables.items() if set(table) > before[name]}
    assert added == {
        *("EXITS", "NEURONS", "MODELS", "DATASETS", "LOSSES", "OPTIMIZERS", "SCHEDULES"),
        *("AUGMENTATIONS", "PRECISIONS"),
    }
    for exit in set(tables["EXITS"]) - before["EXITS"]:
        found = seenn_jax.evaluate(tmp_path / "run", exit=exit, precision="4 bits")
        assert found["exit"] == exit
        assert found["share_of_exit_times_that_differ"] == 0
        assert found["share_of_answers_that_differ"] == 0
    config = runpy.run_path(str(config_file))["get_config"]()
    assert config.augment.noise == 0.1


# --- Links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    folders = "configs|weights|examples|tests|seenn_jax|benchmarks|notebooks|results"
    for name in re.findall(rf"`((?:{folders})/[\w./-]+\.\w+)`", page.read_text()):
        assert (ROOT / name).is_file(), name


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert f": {page.name}\n" in navigation, page.name


def test_every_public_name_is_documented():
    text = (ROOT / "docs" / "api.md").read_text()
    for name in set(seenn_jax.__all__) - {"__version__"}:
        assert re.search(rf"^::: [\w.]+\.{name}$|^\| `{name}` \|", text, re.MULTILINE), name
