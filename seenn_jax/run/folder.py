"""The folder of a run: run.json, with its config and what it knows of its data."""

import json
import logging
from pathlib import Path

import jax
from ml_collections import ConfigDict

from seenn_jax import hosts, provenance
from seenn_jax.config import default_config
from seenn_jax.errors import UserError
from seenn_jax.paths import put
from seenn_jax.plugins import load_plugins
from seenn_jax.run import records
from seenn_jax.run.facts import DataFacts, all_at_least, facts_of
from seenn_jax.run.settings import flat, misfit

_log = logging.getLogger(__name__)
FILE = "run.json"
EXIT_FILE = "exit.json"
METRICS_FILE = "metrics.jsonl"
KEPT = ("exit", "threshold", "threshold_rule", "temperatures", "timesteps")
CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
PARTS = {"config", "data"}  # of run.json, which it must have; the others it may have
ABOUT = {"teacher", "init_weights", "plugins", "revision", "versions", "device"}
# Settings that may change while a run is continued.
FREE = ("data.workers", "data.download", "checkpoint_every", "rewinds")


def claim(
    workdir: Path,
    config: ConfigDict,
    facts: DataFacts,
    teacher: dict | None = None,
    started_from: dict | None = None,
) -> None:
    """Write `run.json`, or check that the one in a used workdir has the same config and data.

    A workdir without a checkpoint is not used: there is nothing in it to continue, and a run that
    failed before its first checkpoint can be mended in its place. Of several processes the first
    writes.

    Args:
      teacher: what is known of the run of `config.teacher`, which must stay the same too.
      started_from: likewise of `config.init_weights`, which are read once, so that they need not.

    Raises:
      UserError: the workdir was used with another config, data or teacher; it can't be written to;
        the processes don't share it, or have other data.
    """
    path = workdir / FILE
    used = path.is_file() and has_checkpoint(workdir)
    if used:
        _check_claimed(workdir, config, facts, teacher)
    hosts.wait_for_all("a look at the workdir")
    if jax.process_index() == 0 and not used:
        _write(path, config, facts, {"teacher": teacher, "init_weights": started_from})
    hosts.wait_for_all("run.json")
    if jax.process_index() > 0:
        if not path.is_file():
            raise UserError(
                f"process {jax.process_index()} does not see {path}, which process 0 has written: "
                "give a --workdir in a folder that all hosts share"
            )
        _check_claimed(workdir, config, facts, teacher)


def _check_claimed(
    workdir: Path, config: ConfigDict, facts: DataFacts, teacher: dict | None
) -> None:
    content = _read(workdir / FILE)
    old, new = flat(config_of(content).to_dict()), flat(config.to_dict())
    differing = sorted(k for k in old | new if old.get(k) != new.get(k) and k not in FREE)
    if differing:
        changes = ", ".join(
            f"`config.{k}` was {old.get(k)!r} and is {new.get(k)!r}" for k in differing
        )
        raise UserError(
            f"{workdir} holds a run with another config ({changes}): "
            "give the same one to continue it, or another --workdir"
        )
    if not facts_of(content).same_images(facts):
        raise UserError(
            f"{workdir} holds a run on other images of {config.data.name!r} (their shape, "
            "classes, mean or standard deviation differ): restore the data that it was "
            "trained on, or give another --workdir"
        )
    taught_by = content.get("teacher")
    if taught_by != teacher:
        raise UserError(
            f"{workdir} was taught by {taught_by}, and `config.teacher`={config.teacher} is now "
            f"{teacher}: restore the teacher that it was begun with, or give another --workdir"
        )


def make(workdir: Path) -> None:
    """Make a workdir; it may be there.

    Raises:
      UserError: it can't be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{workdir} can't be made ({error.strerror}): give a --workdir that can"
        ) from error


def _write(path: Path, config: ConfigDict, facts: DataFacts, others: dict) -> None:
    make(path.parent)
    content = {
        "config": config.to_dict(),
        "data": facts._asdict(),
        **others,
        "plugins": load_plugins(config.plugins),
        **provenance.origin(),
    }
    put(path, _json(content))


def load(workdir: Path) -> tuple[ConfigDict, DataFacts]:
    """Config and data facts of a run, whose plugins are loaded.

    Raises:
      UserError: `workdir` is no run; a plugin is gone.
    """
    path = workdir / FILE
    if not path.is_file():
        raise UserError(
            f"{workdir} holds no run (it has no {FILE}): give the --workdir of a training run, or "
            "train one with python train.py --config=configs/digits.py"
        )
    content = _read(path)
    config, facts = config_of(content), facts_of(content)
    load_plugins(config.plugins, content.get("plugins"))
    return config, facts


def origin_of(workdir: Path) -> dict:
    """What a run was trained with: revision, versions, device, and what plugins added."""
    content = _read(workdir / FILE)
    return {name: content.get(name) for name in ("revision", "versions", "device", "plugins")}


def keep_exit(workdir: Path, result: dict) -> None:
    """Keep the exit of an evaluation, with its value, as the run's own; see `Predictor.predict`."""
    kept = {name: result[name] for name in KEPT}
    put(workdir / EXIT_FILE, _json(kept))


def kept_exit(workdir: Path) -> dict | None:
    """What `keep_exit` kept last, or None.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / EXIT_FILE
    if not path.is_file():
        return None
    try:
        kept = records.parsed(path.read_bytes())
        return _checked_exit({name: kept[name] for name in KEPT})
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it, and evaluate the run again"
        ) from error


def metrics(workdir: Path) -> list[dict[str, float | int]]:
    """The scalars of training by name, epoch by epoch; where lines are lost, a notice says so."""
    path = workdir / METRICS_FILE
    found = [scalars for _, scalars in records.scalars_in(path)[0]]
    there = {line.get("epoch") for line in found}
    lengths = [line["step"] / line["epoch"] for line in found if line.get("epoch")]
    written = (workdir / CHECKPOINTS).glob("*") if path.is_file() else ()
    epochs = max((_logged_before(each, *lengths[:1]) for each in written), default=0)
    lost = [str(epoch) for epoch in range(1, epochs + 1) if epoch not in there]
    if lost:
        _log.warning("%s lacks the line of epoch %s", path, ", ".join(lost))
    return found


def _logged_before(checkpoint: Path, length: float = 0) -> int:
    """How many epochs, of so many steps (0: it is not known), were logged before a checkpoint.

    One without a score was written within an epoch, or at its end but before its validation.
    """
    if not checkpoint.name.isdecimal():
        return 0
    try:
        unscored = b'"score": -Infinity' in (checkpoint / "metrics" / "metrics").read_bytes()
    except OSError:
        unscored = False
    if not length:
        return int(not unscored)
    epochs, rest = divmod(int(checkpoint.name), length)
    return int(epochs) - (unscored and not rest)


def newest(folder: Path) -> Path:
    """The run in `folder` that was trained last.

    Raises:
      UserError: there is none.
    """
    runs = runs_in(folder)
    if not runs:
        raise UserError(
            f"there is no run in {folder}/: train one with python train.py "
            "--config=configs/digits.py, or give its --workdir, or --weights=digits-resnet8"
        )
    return runs[-1]


def runs_in(folder: Path) -> list[Path]:
    """The runs in `folder`, the one that was trained last at the end."""
    return sorted((path.parent for path in folder.glob(f"*/{FILE}")), key=_last_written)


def has_checkpoint(workdir: Path) -> bool:
    """Whether there is anything in the run to continue or to evaluate."""
    return any(path.name.isdigit() for path in (workdir / CHECKPOINTS).glob("*"))


def _last_written(run: Path) -> float:
    checkpoints = run / CHECKPOINTS
    return (checkpoints if checkpoints.is_dir() else run / FILE).stat().st_mtime


def _json(content: dict) -> bytes:
    return (json.dumps(records.sealed(content), indent=2) + "\n").encode()


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} can't be read ({error.strerror}): mend that, or try again later")


def _read(path: Path) -> dict:
    """What a run.json holds, checked."""
    try:
        content = records.parsed(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}): restore it, or give another --workdir; where it was "
            f"changed on purpose, delete the entry {records.CHECKSUM!r} in it"
        ) from error
    unknown = sorted(content.keys() - PARTS - ABOUT)
    if not content.keys() >= PARTS or unknown:
        what = f"has an unknown entry {unknown[0]!r}" if unknown else "lacks the config or data"
        raise UserError(f"{path} {what} of a run: restore it, or give another --workdir")
    try:
        config_of(content)
        facts_of(content)
        _check_about(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} can't be of a run ({error}): restore it, or give another --workdir"
        ) from error
    return content


def config_of(content: dict) -> ConfigDict:
    """The config of a run; what settings it is older than have their defaults.

    Raises:
      AttributeError, KeyError, TypeError, ValueError: a setting is of another type.
    """
    config = default_config()
    with config.unlocked():
        # Before there was such a setting, counts of recordings were cut off.
        config.data.saturate = content["config"]["data"]["name"] == "cifar10_dvs"
        config.update(content["config"])
    wrong = misfit(config)
    if wrong:
        raise ValueError(wrong[1])
    return config


def _check_about(content: dict) -> None:
    plugins = content.get("plugins") or {}
    named = [name for names in plugins.values() for name in names]
    if not all(isinstance(name, str) for name in named):
        raise TypeError("its plugins are none")


def _checked_exit(kept: dict) -> dict:
    """What `keep_exit` kept; a ValueError for what can't be."""
    numbers = [
        *(kept["temperatures"] or []),
        *[kept["threshold"]] * (kept["threshold"] is not None),
    ]
    good = isinstance(kept["exit"], str) and all(map(records.is_number, numbers))
    if (
        not good
        or not isinstance(kept["threshold_rule"], str | None)
        or not all_at_least(1, [kept["timesteps"]])
    ):
        raise ValueError("it names no exit with its value")
    return kept
