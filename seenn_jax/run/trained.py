"""A trained network where it is kept: the folder of a run, or a file of weights."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
from ml_collections import ConfigDict

from seenn_jax.run import checkpoints, folder


class Trained(NamedTuple):
    """What a network needs to run, and where it comes from.

    Attributes:
      place: the folder of the run, or the file.
      setting: what names it on the command line, "workdir" or "weights".
      config, facts: of the training.
      network: `config -> (network, training step)`, of the config or one with another dtype.
      policy: `config -> policy network`.
      exit: `() -> what folder.keep_exit keeps`, None where the run was not evaluated.
      about: how it came to be: revision, versions, device; `sha256` of a file.
      thresholds: of ReLUs to be converted, by their place; None where they are yet to be found.
    """

    place: Path
    setting: str
    config: ConfigDict
    facts: folder.DataFacts
    network: Callable[[ConfigDict], tuple[nnx.Module, int]]
    policy: Callable[[ConfigDict], nnx.Module]
    exit: Callable[[], dict | None]
    about: dict[str, Any]
    thresholds: dict[str, float] | None = None

    @property
    def flag(self) -> str:
        """How it is named on the command line."""
        return f"--{self.setting}={self.place}"


def of_run(workdir: Path, checkpoint: int | None = None) -> Trained:
    """The best checkpoint of a run, or that of this step, which is read when it is asked for.

    Raises:
      UserError: `workdir` is no run; a plugin is gone.
    """
    config, facts = folder.load(workdir)
    read = {"step": checkpoint}  # A policy belongs to the network that was read before it.

    def network(config: ConfigDict) -> tuple[nnx.Module, int]:
        model, step = checkpoints.load_model(workdir, config, facts, checkpoint)
        read["step"] = step
        return model, step

    return Trained(
        workdir,
        "workdir",
        config,
        facts,
        network=network,
        policy=lambda config: checkpoints.load_policy(workdir, config, facts, read["step"]),
        exit=functools.partial(folder.kept_exit, workdir),
        about=folder.origin_of(workdir),
    )
