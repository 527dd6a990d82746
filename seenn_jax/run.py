"""A run: a folder with its config, what it knows of its data, checkpoints, logs and evaluations."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax import provenance
from seenn_jax.data import Dataset, channel_statistics
from seenn_jax.errors import UserError
from seenn_jax.models import build_model
from seenn_jax.neurons import LIF

FILE = "run.json"


class DataFacts(NamedTuple):
    """What a network must know of its data: to be built, and to see its inputs normalised."""

    image_shape: tuple[int, int, int]
    num_classes: int
    mean: list[float]
    std: list[float]

    @staticmethod
    def of(dataset: Dataset) -> "DataFacts":
        """The facts of a data set; mean and standard deviation are those of its train split."""
        mean, std = channel_statistics(dataset.train.images)
        shape = dataset.train.images.shape[1:]
        return DataFacts(shape, dataset.num_classes, mean.tolist(), std.tolist())

    @property
    def normalization(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, std) of each channel, of pixels scaled to 0..1."""
        return np.float32(self.mean), np.float32(self.std)


def build(config: ConfigDict, facts: DataFacts) -> nnx.Module:
    """The network of a config, with fresh parameters."""
    model = config.model
    return build_model(
        model.name,
        model.width,
        image_shape=facts.image_shape,
        num_classes=facts.num_classes,
        neuron=LIF(model.tau, model.threshold, model.surrogate),
        dtype=model.dtype,
        seed=config.seed,
    )


def claim(workdir: Path, config: ConfigDict, facts: DataFacts) -> None:
    """Write `run.json`, or check that the one in a used workdir has the same config.

    Raises:
      UserError: the workdir was used with another config.
    """
    path = workdir / FILE
    if path.is_file():
        old, new = _flat(_read(path)["config"]), _flat(config.to_dict())
        differing = sorted(k for k in old | new if old.get(k) != new.get(k))
        if differing:
            changes = ", ".join(
                f"config.{k} was {old.get(k)!r} and is {new.get(k)!r}" for k in differing
            )
            raise UserError(
                f"{workdir} holds a run with another config ({changes}): "
                "give the same one to continue it, or another --workdir"
            )
        return
    workdir.mkdir(parents=True, exist_ok=True)
    content = {
        "config": config.to_dict(),
        "data": facts._asdict(),
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
    data = content["data"]
    facts = DataFacts(tuple(data.pop("image_shape")), **data)
    return ConfigDict(content["config"]), facts


def newest(folder: Path) -> Path:
    """The run in `folder` that was trained last.

    Raises:
      UserError: there is none.
    """
    runs = [path.parent for path in folder.glob(f"*/{FILE}")]
    if not runs:
        raise UserError(
            f"there is no run in {folder}/: train one with python train.py "
            "--config=configs/digits.py, or give its --workdir"
        )
    return max(runs, key=_last_written)


def _last_written(run: Path) -> float:
    checkpoints = run / "checkpoints"
    return (checkpoints if checkpoints.is_dir() else run / FILE).stat().st_mtime


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is no JSON file ({error}): restore it, or give another --workdir"
        ) from error


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
