"""What `--help` says: every flag, every setting, the rows of every table, on a screen."""

import ast
import functools
import re
from operator import getitem

import pytest

from seenn_jax import hosts
from seenn_jax.cli import help
from seenn_jax.cli.flags import EVALUATE, PREDICT, PROGRAMS
from seenn_jax.cli.overrides import leaves
from seenn_jax.config import default_config
from seenn_jax.engine import METHODS
from seenn_jax.engine.common import BATCH
from seenn_jax.evaluation.evaluate import SPLITS
from seenn_jax.exits import EXITS, Risk, Tolerance
from seenn_jax.models.conversion import PERCENTILE
from seenn_jax.models.precision import PRECISIONS
from seenn_jax.run.tensors import DTYPES


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_help_of_a_program_fits_a_screen(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = help.of_program(name, f"python -m seenn_jax {name}").splitlines()
    assert 12 <= len(lines) <= 44
    assert max(map(len, lines)) <= 100
    # Examples come before flags.
    first = next(i for i, line in enumerate(lines) if line.startswith("  --"))
    assert sum("python -m" in line for line in lines[:first]) >= 3
    text = "\n".join(lines)
    for flag in PROGRAMS[name].flags:
        assert re.search(rf"^  --{flag}[ =]", text, re.MULTILINE), flag


def test_examples_name_flags_that_are_there():
    settings = {f"config.{key}" for key in leaves(default_config())}
    for name, program in PROGRAMS.items():
        known = {*program.flags, *settings, *["config"] * (name == "train")}
        for example in program.examples:
            assert set(re.findall(r"--([\w.]+)", example)) <= known, example


@pytest.mark.parametrize(
    ("flag", "rows"),
    [
        ("exit", EXITS),
        ("method", METHODS),
        ("split", SPLITS),
        ("precision", PRECISIONS),
        ("weights_dtype", DTYPES),
        ("tolerance", [str(Tolerance().value)]),
        ("delta", [str(Risk(0.1).delta)]),
        ("loss", ["disagreement (default)", "accuracy"]),
        ("percentile", [str(PERCENTILE)]),
        ("slots", [str(BATCH)]),
        ("wait", [str(hosts.PATIENCE)]),
    ],
)
def test_the_help_of_a_flag_has_the_rows_of_its_table(flag, rows):
    for table in (EVALUATE, PREDICT):
        if flag in table:
            for row in rows:
                assert row in table[flag].help
    assert Risk(0.1).loss == "disagreement"


def test_every_setting_has_its_default_and_what_is_said_of_it():
    config, found = default_config(), help.settings_by_group()
    settings = {name: (value, remark) for _, group in found for name, value, remark in group}
    assert set(settings) == set(leaves(config))
    for name, (value, _) in settings.items():
        default = functools.reduce(getitem, name.split("."), config)
        literal = re.sub(r"(\d+) / (\d+)", lambda m: str(int(m[1]) / int(m[2])), value)
        assert ast.literal_eval(literal) == default, name
    assert settings["model.width"] == ("16", "channels of the first layer")
    assert settings["optimizer.momentum"] == ("0.9", "")
    # Lines above a setting, and the one beside it.
    assert settings["init_from"][1].startswith("SEENN-II: with candidates, train.py")
    assert settings["init_from"][1].endswith("beside the policy's own")
    assert [heading for heading, _ in found][:3] == [
        "The experiment.",
        "What is learnt from.",
        "On the device, drawn anew for every image and epoch; 0 or False turns one off.",
    ]


def test_help_of_the_settings_is_as_wide_as_the_terminal(monkeypatch):
    for columns in (100, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert max(map(len, help.of_config().splitlines())) <= columns


@pytest.mark.parametrize(
    ("arguments", "topic"),
    [
        (["--help"], ""),
        (["--workdir=x", "-h"], ""),
        (["--help=config"], "config"),
        (["--helpfull"], ""),
        (["--workdir=--help"], None),
        (["help"], None),
        ([], None),
    ],
)
def test_when_help_is_asked_for(arguments, topic):
    assert help.asked(arguments) == topic
