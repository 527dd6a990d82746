"""Train a network or a policy: python train.py --config=configs/digits.py [--config.key=value]."""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from seenn_jax.cli.console import patient_console
from seenn_jax.cli.flags import TRAIN
from seenn_jax.cli.main import main as run_program
from seenn_jax.cli.overrides import load_config
from seenn_jax.cli.start import command
from seenn_jax.config import is_policy
from seenn_jax.errors import UserError
from seenn_jax.run import build, folder
from seenn_jax.training import train
from seenn_jax.training.checks import check_config
from seenn_jax.training.teacher import missing_teacher


def main() -> None:
    """The program."""
    run_program(
        _train,
        TRAIN,
        config="The experiment, a file of configs/.",
        interrupted="interrupted: the same command continues from the latest checkpoint",
    )


def _train() -> None:
    """Train, or continue, the run that the flags name."""
    config, workdir = flags.FLAGS["config"].value, flags.FLAGS["workdir"].value
    if config is None:
        raise UserError("--config is missing: for example --config=configs/digits.py")
    path = Path(config_flags.get_config_filename(flags.FLAGS["config"]))
    # Paths may hold what rich takes for markup, and lines of a log are not to be broken.
    console = patient_console(soft_wrap=True)
    check_config(config)  # before minutes of a teacher's training
    missing = missing_teacher(config, path.parent)
    if missing:
        console.print(f"Training the teacher first, by {missing[1]}.")
        train(_teacher_config(config, *missing), missing[0], console)
    workdir = workdir or f"runs/{path.stem}"
    train(config, Path(workdir), console)
    exit = " --exit=policy" if is_policy(config) else ""
    as_it_is = " --ann" if build.unconvertible(*folder.load(Path(workdir))) else ""
    console.print(f"Next: {command('evaluate')} --workdir={workdir}{exit}{as_it_is}")


def _teacher_config(config: ConfigDict, workdir: Path, source: Path) -> ConfigDict:
    """The config of a teacher on the same data, or, where it was begun, that of its run."""
    if folder.has_checkpoint(workdir):
        return folder.load(workdir)[0]
    teacher_config = load_config(str(source))
    teacher_config.data.update(config.data.to_dict())
    return teacher_config
