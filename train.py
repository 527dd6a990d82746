"""Train a spiking network: python train.py --config=configs/digits.py [--config.key=value ...]."""

from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from seenn_jax import cli, run
from seenn_jax.config import is_policy
from seenn_jax.errors import UserError
from seenn_jax.training.loop import train
from seenn_jax.training.policy import train_policy
from seenn_jax.training.teacher import missing_teacher

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run. Default: runs/NAME_OF_CONFIG.")
MULTIHOST = flags.DEFINE_bool("multihost", False, cli.MULTIHOST)
PATIENCE = flags.DEFINE_integer("patience", cli.PATIENCE, cli.PATIENCE_HELP)


def main() -> None:
    """Train, or continue, the run that the flags name."""
    if CONFIG.value is None:
        raise UserError("--config is missing: for example --config=configs/digits.py")
    if MULTIHOST.value:
        cli.join_processes(PATIENCE.value)
    path = Path(config_flags.get_config_filename(flags.FLAGS["config"]))
    # Paths may hold what rich takes for markup, and lines of a log are not to be broken.
    console = Console(markup=False, soft_wrap=True, quiet=jax.process_index() > 0)
    config, workdir = CONFIG.value, Path(WORKDIR.value or f"runs/{path.stem}")
    missing = missing_teacher(config, path.parent)
    if missing:
        console.print(f"Training the teacher first, by {missing[1]}.")
        train(_teacher_config(config, *missing), missing[0], console)
    start = train_policy if is_policy(config) else train
    start(config, workdir, console)


def _teacher_config(config: ConfigDict, workdir: Path, source: Path) -> ConfigDict:
    """The config of a teacher on the same data, or, where it was begun, that of its run."""
    if run.has_checkpoint(workdir):
        return run.load(workdir)[0]
    teacher_config = cli.load_config(str(source))
    teacher_config.data.update(config.data)
    return teacher_config


if __name__ == "__main__":
    cli.main(main, "interrupted: the same command continues from the latest checkpoint")
