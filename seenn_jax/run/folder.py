"""The folder of a run: run.json, with its config and what it knows of its data."""

import contextlib
import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from seenn_jax import hosts, provenance
from seenn_jax.config import default_config
from seenn_jax.data import Dataset, Stream, channel_statistics, count_statistics
from seenn_jax.data.images import MEAN, STD
from seenn_jax.errors import UserError
from seenn_jax.paths import put
from seenn_jax.plugins import load_plugins
from seenn_jax.ticks import frames, image_shape

FILE = "run.json"
EXIT_FILE = "exit.json"
METRICS_FILE = "metrics.jsonl"
KEPT = ("exit", "threshold", "threshold_rule", "temperatures", "timesteps")
CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
# Settings that may change while a run is continued.
FREE = ("data.workers", "data.download", "checkpoint_every")


class DataFacts(NamedTuple):
    """What a network must know of its data: to be built, and to see its inputs normalised."""

    image_shape: tuple[int, int, int]  # of event data, that of one frame
    num_classes: int
    mean: list[float]
    std: list[float]
    frames: int = 0  # of event data, one for each timestep; 0 of still images
    classes: tuple[str, ...] = ()  # their names, where the data have any

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes; their numbers where the data have no names."""
        return self.classes or tuple(map(str, range(self.num_classes)))

    def same_images(self, other: "DataFacts") -> bool:
        """Whether both are of the same images; those of older runs have no names of classes."""
        if self.classes and other.classes:
            return self == other
        return self._replace(classes=()) == other._replace(classes=())

    @staticmethod
    def of(dataset: Dataset) -> "DataFacts":
        """The facts of a data set; mean and standard deviation are those of its train split.

        Of one that is streamed they are ImageNet's.
        """
        if isinstance(dataset.train, Stream):
            shape = (dataset.train.side, dataset.train.side, 3)
            return DataFacts(
                shape, dataset.num_classes, list(MEAN), list(STD), classes=dataset.classes
            )
        images = dataset.train.images
        count = frames(images)
        mean, std = (count_statistics if count else channel_statistics)(images)
        shape = image_shape(images)
        return DataFacts(
            shape, dataset.num_classes, mean.tolist(), std.tolist(), count, dataset.classes
        )

    @property
    def normalization(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, std) of each channel, of values scaled to 0..1; see `data.normalize`."""
        return np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)


def claim(
    workdir: Path,
    config: ConfigDict,
    facts: DataFacts,
    teacher: dict | list[dict] | None = None,
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
    workdir: Path, config: ConfigDict, facts: DataFacts, teacher: dict | list[dict] | None
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


def _write(path: Path, config: ConfigDict, facts: DataFacts, others: dict) -> None:
    workdir = path.parent
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{workdir} can't be made ({error.strerror}): give a --workdir that can"
        ) from error
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
    config = config_of(content)
    load_plugins(config.plugins, content.get("plugins"))
    return config, facts_of(content)


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
        kept = json.loads(path.read_text())
        return {name: kept[name] for name in KEPT}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it, and evaluate the run again"
        ) from error


def metrics(workdir: Path) -> list[dict[str, float | int]]:
    """The scalars of training by name, epoch by epoch; what a killed one left unfinished is out."""
    path = workdir / METRICS_FILE
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


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
    return (json.dumps(content, indent=2) + "\n").encode()


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is no JSON file ({error}): restore it, or give another --workdir"
        ) from error
    if not (isinstance(content, dict) and {"config", "data"} <= content.keys()):
        raise UserError(
            f"{path} lacks the config or data of a run: restore it, or give another --workdir"
        )
    return content


def config_of(content: dict) -> ConfigDict:
    """The config of a run; what settings it is older than have their defaults."""
    config = default_config()
    with config.unlocked():
        config.update(content["config"])
    return config


def facts_of(content: dict) -> DataFacts:
    """What a run knows of its data."""
    data = dict(content["data"])
    classes = tuple(data.pop("classes", ()))
    return DataFacts(tuple(data.pop("image_shape")), **data, classes=classes)


def flat(tree: dict, prefix: str = "") -> dict:
    """A config as one dict, settings in groups by "group.name"."""
    found = {}
    for key, value in tree.items():
        name = prefix + key
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
