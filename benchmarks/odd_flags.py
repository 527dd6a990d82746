"""Give every setting and flag odd values, and count what becomes of it.

    python benchmarks/odd_flags.py --tries=200 --json=FILE

Each try is a program that is called in a process of its own; of every tenth, also a really started
one. A value is refused by one sentence, or it is right: what it trains can be evaluated. What must
not be:

- silent: it is taken, and training ends by an error after it has begun (but for a loss that is not
  finite, which the data decide), or what was trained can't be evaluated;
- traceback: anything else but one sentence and status 2, and that it takes too long or too much.
"""

import argparse
import importlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import jaxlib.version
import numpy as np
import records
from damaged_data import apart
from flax import nnx
from PIL import Image

import seenn_jax
from seenn_jax.cli.flags import PROGRAMS
from seenn_jax.config import default_config, is_policy
from seenn_jax.errors import UserError
from seenn_jax.exits import Given
from seenn_jax.interop.names import official_names
from seenn_jax.models import build_model
from seenn_jax.run import folder
from seenn_jax.run.settings import flat

OUTCOMES = ("right", "sentence", "silent", "traceback")
LONGEST = 1000  # characters of a sentence
MOST = 6 * 2**30  # bytes of memory
EVERY = 10  # of so many tries one is a started process too

IMPORTED = (*(f"seenn_jax.cli.{program}" for program in PROGRAMS), "orbax.checkpoint", "sklearn")
VALUES = (
    *("None", "abc", "", " ", "-1", "0", "1", "2", "3", "2.5", "-0.0", "0.5", "1e-300", "1e400"),
    *("nan", "inf", "-inf", "100000", "2147483647", "2147483648", "99999999999999999999"),
    *("1" * 5000, "1e9", "0x10", "1_0", "true", "True", "False", "()", "(1,)", "(1,'a')", "(1,2)"),
    *("(2,1)", "(0.5,1)", "(None,None)", "(1,nan)", "((1,2),(3,4))", "[1,2]", "{}", "{'a': 1}"),
    *("1,2", "(", "'", '"', "a=b", "../..", "/", "/dev/null", "/proc/self/mem", "~", "~nobody/x"),
    *(
        "x" * 300,
        "x" * 100_000,
        "(" * 5000,
        "(1," * 200,
        "\x1b[2J",
        "ü",
        "日本",
        "\uff11\uff12",
        "\udcff",
    ),
    *("\u202e", "💥", "__import__('os')", "lambda: 1", "$HOME", "%s", "{0}", "`x`", "a\nb", "--"),
)
SMALL = (
    *("--config=digits", "--config.epochs=1", "--config.inherit_epochs=0", "--config.timesteps=2"),
    *("--config.model.width=4", "--config.augment.crop=0", "--config.validate_every=1"),
    "--config.batch_size=512",
)
# Nothing here runs for long, and the time of a try is the compiler's.
COMPILED_SOON = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_use_fusion_emitters=false" * (jaxlib.version.__version_info__ < (0, 12))
)
POLICY = ("--config.policy.candidates=(1,2)", "--config.policy.width=4", "--config.policy.copies=1")


def settings() -> list[str]:
    """Every setting, as a flag."""
    return [f"config.{name}" for name in flat(default_config().to_dict())]


def call(program: str, arguments: list[str], place: Path) -> str:
    """What becomes of a program with these arguments, in this process."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))
    os.chdir(place)
    sys.argv = [f"seenn-jax {program}", *arguments]
    out, err, status, after = Path(place, "out"), Path(place, "err"), 0, "right"
    with out.open("w") as sys.stdout, err.open("w") as sys.stderr:
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stderr.fileno(), 2)
        try:
            module = importlib.import_module(f"seenn_jax.cli.{program}")
            if program == "serve":
                module._listen = lambda *_: None  # which it would do until it is told to end
            module.main()
        except SystemExit as end:
            status = end.code or 0
        if status == 0 and program == "train":
            after = evaluated(place / "new")
    answer = judged(status, out.read_text(errors="replace"), err.read_text(errors="replace"))
    return after if answer == "right" else answer


def judged(status: int, out: str, err: str) -> str:
    """The outcome of a program that ended so."""
    if status == 0:
        return "right" if "Traceback" not in err else f"traceback {err[-2000:]}"
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    one = status == 2 and len(errors) == 1 and "Traceback" not in err and "\x1b" not in err
    if not one or len(errors[0]) > LONGEST:
        return f"traceback {err[-2000:]}"
    late = re.search(r"^Training .*, in .*new\.$", out, re.M) and "must be finite" not in errors[0]
    return f"silent {errors[0]}" if late else f"sentence {errors[0]}"


def evaluated(run: Path) -> str:
    """Whether what was trained can be evaluated."""
    if not run.is_dir():  # by another --workdir
        return "right"
    try:
        exit = "policy" if is_policy(folder.load(run)[0]) else "confidence"
        found = seenn_jax.evaluate(run, exit=exit, choice=Given(0.5))  # nothing is chosen on data
    except UserError as error:
        return f"silent {error}"
    return "right" if 0 <= found["accuracy"] <= 1 else f"silent accuracy {found['accuracy']}"


def started(program: str, arguments: list[str], place: Path) -> str:
    """The same of a process that is started."""
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "seenn_jax", program, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return judged(done.returncode, done.stdout, done.stderr)


def checkpoint() -> dict[str, np.ndarray]:
    """A state dict as of SEENN's ResNet-19, to import."""
    model = build_model("resnet19", 2, image_shape=(32, 32, 3), num_classes=10)
    names, arrays = official_names(model), nnx.to_flat_state(nnx.state(model))
    plain = ((names[path], np.asarray(variable[...])) for path, variable in arrays)
    return {name: x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T for name, x in plain}


def tries_of(count: int, seed: int, run: Path, image: Path, network: Path) -> list[tuple]:
    """(program, flag, value, the other arguments) of so many tries; of all where it is 0."""
    pairs = [("train", flag, value) for flag in (*settings(), "config") for value in VALUES]
    for program, about in PROGRAMS.items():
        pairs += [(program, flag, value) for flag in about.flags for value in VALUES]
    chosen = random.Random(seed).sample(pairs, count or len(pairs))
    made = []
    for program, flag, value in chosen:
        base = {
            "train": [*SMALL, *(POLICY if ".policy." in flag else ())],
            "evaluate": [f"--workdir={run}"],
            "predict": [f"--workdir={run}", str(image)],
            "serve": [f"--workdir={run}", "--port=0"],
            "import": [str(network)],
        }[program]
        made.append((program, flag, value, base))
    return made


def counted(tries: list, place: Path, details: Path | None) -> dict[str, Counter]:
    """{program: {outcome: how often}} of the tries."""
    table = {program: Counter() for program in PROGRAMS}
    for number, (program, flag, value, base) in enumerate(tries):
        at = place / f"at{number}"
        at.mkdir()
        arguments = [*base, f"--{flag}={value}"]
        if program == "train" and flag != "workdir":
            arguments.insert(0, f"--workdir={at / 'new'}")
        answer = apart(lambda p=program, a=arguments, at=at: call(p, a, at))
        answers = [answer]
        if number % EVERY == 0 and program != "serve":
            shutil.rmtree(at / "new", ignore_errors=True)
            answers.append(started(program, arguments, at / "started"))
        for each in answers:
            outcome = each.partition(" ")[0]
            table[program][outcome if outcome in OUTCOMES else "traceback"] += 1
            if details:
                with details.open("a") as file:
                    file.write(json.dumps([program, flag, value[:100], each]) + "\n")
        shutil.rmtree(at, ignore_errors=True)
    return table


def valued(
    count: int, place: Path, details: Path | None = None, seed: int = 0
) -> dict[str, Counter]:
    """{program: {outcome: how often}} of so many odd values, all of them where it is 0."""
    for module in IMPORTED:  # once, for all tries
        importlib.import_module(module)
    os.environ |= {"XDG_CACHE_HOME": str(place / "cache"), "XLA_FLAGS": COMPILED_SOON}
    (place / "first").mkdir(parents=True)
    run, image = place / "first" / "new", place / "image.png"
    network = place / "network.npz"
    apart(lambda: np.savez(network, **checkpoint()) or "right")  # which computes
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(image)
    for program, base in (("train", SMALL), ("evaluate", ())):
        given = [*base, f"--workdir={run}"]
        made = apart(lambda p=program, a=given: call(p, a, place / "first"))
        if made != "right":
            raise SystemExit(f"the run to evaluate could not be made: {made}")
    return counted(tries_of(count, seed, run, image, network), place, details)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tries", type=int, default=200, help="0 for all")
    parser.add_argument("--seed", type=int, default=0, help="of which ones")
    parser.add_argument("--details", type=Path, help="write a line of JSON for each try")
    parser.add_argument("--json", type=Path, help="add a record to this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        table = valued(asked.tries, Path(scratch), asked.details, asked.seed)
    print("|  | tries |", " | ".join(OUTCOMES), "|")
    print("| --- " * (len(OUTCOMES) + 2) + "|")
    for name, counts in table.items():
        print(f"| {name} | {counts.total()} |", " | ".join(str(counts[o]) for o in OUTCOMES), "|")
    total = sum(table.values(), Counter())
    figures = {"tries": total.total(), "silent": total["silent"], "tracebacks": total["traceback"]}
    if asked.json:
        records.add(asked.json, records.record("Odd values of settings and flags", figures))
    sys.exit(bool(total["silent"] + total["traceback"]))


if __name__ == "__main__":
    main()
