"""A run: a folder with its config, what it knows of its data, checkpoints, logs and evaluations."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax import conversion, hosts, provenance
from seenn_jax.config import default_config
from seenn_jax.conversion import QCFS, ReLU
from seenn_jax.data import (
    Dataset,
    Split,
    channel_statistics,
    count_statistics,
    load_dataset,
    load_streamed,
    normalize,
    streaming,
)
from seenn_jax.errors import UserError
from seenn_jax.models import build_model, policy
from seenn_jax.neurons import LIF

FILE = "run.json"
CALIBRATION = 2048  # training images that thresholds of ReLUs are taken from
BATCH = 256
CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
FREE = ("data.workers", "checkpoint_every")  # settings that may change while a run is continued


class DataFacts(NamedTuple):
    """What a network must know of its data: to be built, and to see its inputs normalised."""

    image_shape: tuple[int, int, int]  # of event data, that of one frame
    num_classes: int
    mean: list[float]
    std: list[float]
    frames: int = 0  # of event data, one for each timestep; 0 of still images

    @staticmethod
    def of(dataset: Dataset) -> "DataFacts":
        """The facts of a data set; mean and standard deviation are those of its train split.

        Of one that is streamed they are ImageNet's.
        """
        if isinstance(dataset.train, streaming.Stream):
            shape = (dataset.train.side, dataset.train.side, 3)
            mean, std = streaming.MEAN, streaming.STD
            return DataFacts(shape, dataset.num_classes, list(mean), list(std))
        images = dataset.train.images
        *frames, height, width, channels = images.shape[1:]
        mean, std = (count_statistics if frames else channel_statistics)(images)
        shape = (height, width, channels)
        return DataFacts(shape, dataset.num_classes, mean.tolist(), std.tolist(), *frames)

    @property
    def normalization(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, std) of each channel, of values scaled to 0..1; see `data.normalize`."""
        return np.float32(self.mean), np.float32(self.std)


def load_data(config: ConfigDict) -> Dataset:
    """The data set of a config; see `sources.load_dataset` and `streaming.load_streamed`."""
    options = {
        "data_dir": config.data.dir or None,
        "validation": config.data.validation,
        "skip_corrupt": config.data.skip_corrupt,
    }
    if config.data.image_size:
        return load_streamed(config.data.name, side=config.data.image_size, **options)
    return load_dataset(config.data.name, timesteps=config.timesteps, **options)


def build(config: ConfigDict, facts: DataFacts) -> nnx.Module:
    """The network of a config, with fresh parameters."""
    model = config.model
    return build_model(
        model.name,
        model.width,
        image_shape=facts.image_shape,
        num_classes=facts.num_classes,
        neuron=_neuron(config),
        dtype=model.dtype,
        seed=config.seed,
    )


def convert(
    model: nnx.Module,
    config: ConfigDict,
    facts: DataFacts,
    dataset: Dataset,
    percentile: float | None = None,
) -> nnx.Module:
    """The spiking network of a run's ANN, for inference; see `conversion.convert`.

    ReLUs are calibrated on `CALIBRATION` images drawn from the training split, with `percentile`
    (None: `conversion.PERCENTILE`).
    """
    model = nnx.view(model, use_running_average=True)
    thresholds = None
    if config.activation == "relu":
        pool = dataset.train.images
        order = np.random.default_rng(0).permutation(len(pool))[:CALIBRATION]
        some = Split(pool[order], np.zeros(len(order), np.int32))  # labels that nothing reads
        images = (images for images, _ in batches(some, config, facts))
        percentile = conversion.PERCENTILE if percentile is None else percentile
        thresholds = conversion.calibrate(model, images, percentile)
    return conversion.convert(model, facts.image_shape, thresholds)


def batches(
    split: Split | streaming.Stream, config: ConfigDict, facts: DataFacts
) -> Iterator[tuple[jax.Array, np.ndarray]]:
    """(normalised images, labels) of a split, `BATCH` at a time."""
    for start in range(0, len(split.labels), BATCH):
        images = jnp.asarray(split.images[start : start + BATCH])
        inputs = normalize(images, *facts.normalization, dtype=config.model.dtype)
        yield inputs, split.labels[start : start + BATCH]


def build_policy(config: ConfigDict, facts: DataFacts) -> nnx.Module:
    """The policy network of a config, with fresh parameters."""
    return policy.build_policy(
        config.policy.width,
        image_shape=facts.image_shape,
        candidates=len(config.policy.candidates),
        classes=facts.num_classes if config.policy.auxiliary else 0,
        dtype=config.model.dtype,
        seed=config.seed,
    )


def _neuron(config: ConfigDict) -> Callable:
    if config.activation == "qcfs":
        return QCFS(
            config.quantization_levels, config.initial_threshold, tuple(config.training_levels)
        )
    if config.activation == "relu":
        return ReLU()
    return LIF(config.model.tau, config.model.threshold, config.model.surrogate)


def claim(workdir: Path, config: ConfigDict, facts: DataFacts, teacher: dict | None = None) -> None:
    """Write `run.json`, or check that the one in a used workdir has the same config and data.

    A workdir without a checkpoint is not used: there is nothing in it to continue, and a run that
    failed before its first checkpoint can be mended in its place. Of several processes the first
    writes.

    Args:
      teacher: what is known of the run of `config.teacher`, which must stay the same too.

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
        _write(path, config, facts, teacher)
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
    old, new = _flat(_config(content).to_dict()), _flat(config.to_dict())
    differing = sorted(k for k in old | new if old.get(k) != new.get(k) and k not in FREE)
    if differing:
        changes = ", ".join(
            f"config.{k} was {old.get(k)!r} and is {new.get(k)!r}" for k in differing
        )
        raise UserError(
            f"{workdir} holds a run with another config ({changes}): "
            "give the same one to continue it, or another --workdir"
        )
    if _facts(content) != facts:
        raise UserError(
            f"{workdir} holds a run on other images of {config.data.name!r} (their shape, "
            "classes, mean or standard deviation differ): restore the data that it was "
            "trained on, or give another --workdir"
        )
    before = content.get("teacher")
    if before != teacher:
        raise UserError(
            f"{workdir} was taught by {before}, and config.teacher={config.teacher} is now "
            f"{teacher}: restore the teacher that it was begun with, or give another --workdir"
        )


def _write(path: Path, config: ConfigDict, facts: DataFacts, teacher: dict | None) -> None:
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
        "teacher": teacher,
        "revision": provenance.revision(),
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)


def load(workdir: Path) -> tuple[ConfigDict, DataFacts]:
    """Config and data facts of a run.

    Raises:
      UserError: `workdir` is no run.
    """
    path = workdir / FILE
    if not path.is_file():
        raise UserError(
            f"{workdir} holds no run (it has no {FILE}): give the --workdir of a training run, or "
            "train one with python train.py --config=configs/digits.py"
        )
    content = _read(path)
    return _config(content), _facts(content)


def newest(folder: Path) -> Path:
    """The run in `folder` that was trained last.

    Raises:
      UserError: there is none.
    """
    runs = runs_in(folder)
    if not runs:
        raise UserError(
            f"there is no run in {folder}/: train one with python train.py "
            "--config=configs/digits.py, or give its --workdir"
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


def _config(content: dict) -> ConfigDict:
    """The config of a run; what settings it is older than have their defaults."""
    config = default_config()
    with config.unlocked():
        config.update(content["config"])
    return config


def _facts(content: dict) -> DataFacts:
    data = dict(content["data"])
    return DataFacts(tuple(data.pop("image_shape")), **data)


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        name = prefix + key
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
