"""Flags by their old names, and flags that contradict each other or would be ignored."""

import json

import pytest
from absl import flags

from seenn_jax.cli.flags import EVALUATE, TRAIN, choice_of, renamed
from seenn_jax.errors import UserError
from seenn_jax.exits import Given, Risk, Target, Tolerance
from seenn_jax.run import folder
from tests.cli.conftest import DIGITS, check_refused, named_after

# --- Mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([DIGITS, "--wrokdir=x"], ["unknown flag 'wrokdir'", "did you mean 'workdir'?"]),
        (
            [DIGITS, "--batch_size=7"],
            ["unknown flag 'batch_size'", "workdir, multihost, wait, config"],
        ),
        ([DIGITS, "fast"], ["unexpected argument 'fast'", "--name=value"]),
        ([DIGITS, "--wait=5"], ["--wait=5 goes with --multihost: give that too, or leave it out"]),
    ],
    ids=named_after,
)
def test_train_refuses_flags(refused_training, arguments, named):
    refused_training(arguments, named)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--exits=full"], ["unknown flag 'exits'", "did you mean 'exit'?"]),
        (["confidence"], ["unexpected argument 'confidence'", "--name=value"]),
        (["--threshold=high"], ["--threshold is 'high'", "a number"]),
        (["--slots=all"], ["--slots is 'all'", "an integer"]),
        (["--threshold=0.5", "--risk=0.1"], ["--threshold=0.5 and --risk=0.1 choose one"]),
        (
            ["--tolerance=0.01", "--target_timesteps=2"],
            ["--target_timesteps=2.0 and --tolerance=0.01 choose one threshold in different ways"],
        ),
        (["--tolerance=0", "--risk=0.1"], ["--risk=0.1 and --tolerance=0.0 choose one"]),
        (["--delta=0.2"], ["--delta=0.2 goes with --risk: give that too, or leave it out"]),
        (["--loss=accuracy"], ["--loss=accuracy goes with --risk"]),
        (["--threshold=0.5", "--delta=0.2"], ["--delta=0.2 goes with --risk"]),
        (["--wait=5"], ["--wait=5 goes with --multihost"]),
        (["--ann", "--exit=confidence"], ["--exit=confidence is for a spiking network", "--ann"]),
        (["--ann", "--timesteps=4"], ["--timesteps=4 is for a spiking network", "leave one"]),
        (["--ann", "--nir=a.nir"], ["--nir=a.nir is for a spiking network", "leave one of them"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_evaluate_refuses_flags(program, trained, contents, arguments, named):
    before = contents(trained)
    check_refused(*program("evaluate.py", f"--workdir={trained}", *arguments), *named)
    assert contents(trained) == before


# --- How the value of an exit is chosen ------------------------------------------------------


@pytest.fixture
def values():
    """`(**values) -> flags` of evaluate.py with these."""

    def call(**given):
        found = flags.FlagValues()
        for name, flag in EVALUATE.items():
            flag.define(name, flag.default, flag.help, flag_values=found)
        found(["evaluate.py", *(f"--{name}={value}" for name, value in given.items())])
        return found

    return call


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ({}, None),
        ({"exit": "patience", "split": "train"}, None),
        ({"threshold": 0.5}, Given(0.5)),
        ({"threshold": 0}, Given(0.0)),
        ({"target_timesteps": 1.5}, Target(1.5)),
        ({"tolerance": 0}, Tolerance(0.0)),
        ({"risk": 0.1}, Risk(0.1)),
        ({"risk": 0.1, "delta": 0.2}, Risk(0.1, delta=0.2)),
        ({"risk": 0.1, "loss": "accuracy"}, Risk(0.1, loss="accuracy")),
    ],
    ids=str,
)
def test_the_flags_of_a_choice(values, given, choice):
    assert choice_of(values(**given)) == choice


def test_a_choice_of_two_ways_names_both(values):
    with pytest.raises(UserError, match=r"`threshold`=0\.5 and `risk`=0\.1 choose one threshold"):
        choice_of(values(threshold=0.5, risk=0.1))


# --- Old names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "table"),
    [
        (["--patience=5"], ["--wait=5"], TRAIN),
        (["--patience", "5"], ["--wait", "5"], TRAIN),
        (["-batch_size=3"], ["--slots=3"], EVALUATE),
        (["--dtype=int8", "--exit=full"], ["--precision=int8", "--exit=full"], EVALUATE),
    ],
    ids=("wait", "two words", "slots", "precision"),
)
def test_a_flag_by_its_old_name(capsys, old, new, table):
    assert renamed(old, table) == new
    names = [argument.lstrip("-").partition("=")[0] for argument in (old[0], new[0])]
    notice = f"notice: --{names[0]} is now --{names[1]}, and goes with the next release\n"
    assert capsys.readouterr() == ("", notice)


def test_only_old_names_are_changed(capsys):
    arguments = [DIGITS, "--config.batch_size=3", "batch_size=3", "--workdir=--dtype", "patience"]
    assert renamed(arguments, TRAIN) == arguments
    # These are no flags of train.py, and never were.
    assert renamed(["--batch_size=3", "--dtype=x"], TRAIN) == ["--batch_size=3", "--dtype=x"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("patience", ["--patience=3", "-patience=3"])
def test_patience_that_may_be_meant_for_the_exit(program, trained, patience):
    refused = program("evaluate.py", f"--workdir={trained}", patience, "--exit=patience")
    named = "--patience=3 is the old name of --wait, the seconds that processes wait for each other"
    check_refused(*refused, named, "for 3 equal answers in a row give --threshold=3")


def test_old_names_give_the_same_result(program, copy_of_trained):
    def evaluated(*arguments):
        arguments = [f"--workdir={copy_of_trained}", "--exit=confidence", *arguments]
        status, out, err = program("evaluate.py", *arguments)
        assert (status, f"Evaluating {copy_of_trained}." in out) == (0, True)
        path = copy_of_trained / "evaluation" / "confidence" / "result.json"
        return json.loads(path.read_text()), err

    new, err = evaluated("--slots=150", "--precision=float32", "--split=validation")
    assert err == ""
    old, err = evaluated("--batch_size=150", "--dtype=float32", "--split=validation")
    notices = ("--batch_size is now --slots", "--dtype is now --precision")
    assert err == "".join(f"notice: {n}, and goes with the next release\n" for n in notices)
    assert (old["slots"], old["precision"]) == (150, "float32")
    assert {k for k in new if new[k] != old[k]} <= {"images_per_second", "revision"}
    # What was evaluated on the test split last is the run's own exit.
    assert folder.kept_exit(copy_of_trained) is None
    tested, _ = evaluated()
    assert folder.kept_exit(copy_of_trained) == {name: tested[name] for name in folder.KEPT}
