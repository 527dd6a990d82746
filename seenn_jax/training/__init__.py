"""Training of networks and of policies."""

from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from seenn_jax import hosts
from seenn_jax.config import is_policy
from seenn_jax.run import checkpoints
from seenn_jax.run.lock import only_one
from seenn_jax.training.checks import check_config
from seenn_jax.training.network import train_network
from seenn_jax.training.policy.train import train_policy


def train(config: ConfigDict, workdir: str | Path, console: Console | None = None) -> None:
    """Train the network, or the policy, of `config` in `workdir`, or continue where it stopped.

    Args:
      config: from `config.default_config`, changed.
      workdir: the run, a folder that is made if need be; it must be new, or hold a run of the same
        config on the same data.
      console: where to say what is done; standard output by default.

    Raises:
      UserError: a config that can't be, data that are not there, a workdir of another config, a
        checkpoint of another architecture, a loss that is not finite; a plugin that fails; another
        training in the workdir; a disk that is full.
      SystemExit: of status 143, after SIGTERM; the step reached is saved.
    """
    check_config(config)
    workdir, console = Path(workdir), console or Console(markup=False, soft_wrap=True)
    start = train_policy if is_policy(config) else train_network
    with only_one(workdir):
        damaged = hosts.of_first(lambda: checkpoints.set_aside_damaged(workdir))
        for sentence in damaged:
            console.print(sentence)
        if damaged and not checkpoints.steps(workdir):
            console.print(f"{workdir} has no whole checkpoint left, and is begun anew.")
        start(config, workdir, console)
