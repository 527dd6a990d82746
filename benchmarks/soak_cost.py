"""What the checksums of checkpoints cost: time of saving and of training, and bytes."""

import contextlib
import json
import random
import shutil
import statistics
import time
from pathlib import Path
from unittest import mock

import jax
from rich.console import Console

from seenn_jax.cli.overrides import load_config
from seenn_jax.run import build, checkpoints, folder, stored
from seenn_jax.training import train
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import initial_state

TRIES = 5


def cost(tries: int | None, scratch: Path, rng: random.Random) -> dict:
    """Figures with checksums and without, in turns: ResNet-19's checkpoint, and digits' steps."""
    rows = [_of_resnet19(tries or TRIES, scratch / "saved"), _of_digits(tries or TRIES, scratch)]
    return {"rows": rows}


def _without() -> mock._patch:
    """No checksum of arrays is computed."""
    return mock.patch.object(stored, "checksum_of", return_value=0)


def _of_resnet19(tries: int, workdir: Path) -> dict:
    """Seconds for which a save holds training up, and until it is written; bytes."""
    config = load_config("cifar10")
    facts = folder.DataFacts((32, 32, 3), 10, [0.5] * 3, [0.25] * 3)
    _, state = initial_state(build.network(config, facts), make_optimizer(config, 100), config.ema)
    state = jax.block_until_ready(state)
    held: dict[str, list[float]] = {"with": [], "without": []}
    whole: dict[str, list[float]] = {"with": [], "without": []}
    workdir.mkdir(parents=True)
    with checkpoints.open_checkpoints(workdir) as manager:
        for number in range(1, 2 * tries + 3):
            which = ("with", "without")[number % 2]
            with contextlib.nullcontext() if which == "with" else _without():
                started = time.perf_counter()
                checkpoints.save(manager, number, state, 0.5)
                saved = time.perf_counter() - started
                manager.wait_until_finished()
            if number > 2:  # the first of each has more to do
                held[which].append(saved)
                whole[which].append(time.perf_counter() - started)
    place = stored.place(workdir, checkpoints.steps(workdir)[-1])
    found = json.loads((place / "metrics" / "metrics").read_text())
    checks = len(json.dumps(found)) - len(json.dumps({"score": found["score"]}))
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return {
        "of": "checkpoint of ResNet-19",
        "bytes": size,
        "bytes_of_checksums": checks,
        **{f"seconds_held_{which}": statistics.median(held[which]) for which in held},
        **{f"seconds_written_{which}": statistics.median(whole[which]) for which in whole},
    }


def _of_digits(tries: int, scratch: Path) -> dict:
    """Seconds of a step of configs/digits.py, the fastest epoch of each of several runs."""
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    config = load_config("digits")
    config.update(epochs=3, inherit_epochs=0, validate_every=1, checkpoint_every=5)
    for number in range(2 * tries):
        which, workdir = ("with", "without")[number % 2], scratch / "digits"
        shutil.rmtree(workdir, ignore_errors=True)
        with contextlib.nullcontext() if which == "with" else _without():
            train(config, workdir, Console(quiet=True))
        speed = max(line["train/images_per_second"] for line in folder.metrics(workdir))
        seconds[which].append(config.batch_size / speed)
    return {
        "of": "training step of configs/digits.py, a checkpoint every 5 steps",
        **{f"seconds_{which}": statistics.median(seconds[which]) for which in seconds},
    }
