"""The teacher: a trained ordinary network whose answers each tick of a spiking one learns."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from seenn_jax.config import is_policy
from seenn_jax.errors import UserError
from seenn_jax.models import is_ann
from seenn_jax.models.network import inference_network
from seenn_jax.run import folder
from seenn_jax.run.checkpoints import load_model
from seenn_jax.training.logs import is_trained


class Teacher(NamedTuple):
    """A teacher, ready to be asked inside a training step.

    Attributes:
      logits: `(params, inputs [B, H, W, C]) -> logits [B, K]`; the inputs are normalised for the
        network that learns.
      params: its parameters, the averaged ones where it has them.
      about: which it is, in plain values: workdir, checkpoint_step and a checksum of its
        parameters.
    """

    logits: Callable[[Any, Array], Array]
    params: Any
    about: dict


def open_teacher(config: ConfigDict, facts: folder.DataFacts) -> Teacher | None:
    """The teacher of a config; None where it has none, or one of no weight.

    Raises:
      UserError: `config.teacher` is no run, has no checkpoint, is of a spiking network or a policy,
        or of images of another shape or other classes.
    """
    if not config.teacher or config.teacher_weight == 0:
        return None
    path = Path(config.teacher)
    misfit = _misfit(path, config, facts)
    if misfit:
        raise UserError(
            f"`config.teacher` is {path}, which can't teach: {misfit}; set `config.teacher` to a "
            "run of an ordinary network on the same data, such as that of configs/cifar10_ann.py, "
            "or to '' for none"
        )
    its_config, its_facts = folder.load(path)
    model, step = load_model(path, its_config, its_facts)
    network = inference_network(model, its_facts.image_shape, 1)
    checksum = 0
    for leaf in jax.tree.leaves(network.params):
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    about = {"workdir": str(path), "checkpoint_step": step, "checksum": f"{checksum:08x}"}
    renormalize = _renormalize(facts, its_facts)

    def logits(params, inputs):
        return network.logits(params, renormalize(inputs))[:, 0]

    return Teacher(logits, network.params, about)


def missing_teacher(config: ConfigDict, configs: Path) -> tuple[Path, Path] | None:
    """(workdir, config file) of a teacher that is yet to be trained, or to be trained on.

    A run of the name of a config in the folder `configs` is taken for that config's: there
    `train.py` puts it where nothing is said. None where there is no such config, or no need.
    """
    if not config.teacher or config.teacher_weight == 0:
        return None
    path = Path(config.teacher)
    source = configs / f"{path.name}.py"
    return None if not source.is_file() or is_trained(path) else (path, source)


def _misfit(path: Path, config: ConfigDict, facts: folder.DataFacts) -> str | None:
    """What keeps the network of a run from teaching on these data, or None."""
    try:
        its_config, seen = folder.load(path)
    except UserError as error:
        return str(error).partition(": ")[0]
    if not folder.has_checkpoint(path):
        return "it has no checkpoint yet"
    if is_policy(its_config):
        return "it is a policy's run"
    if not is_ann(its_config):
        return "its network is a spiking one"
    if seen.num_classes != facts.num_classes:
        return f"it knows {seen.num_classes} classes, and the data have {facts.num_classes}"
    ours = (facts.frames,) * bool(facts.frames) + tuple(facts.image_shape)
    if tuple(seen.image_shape) != ours:
        theirs, ours = ("x".join(map(str, shape)) for shape in (seen.image_shape, ours))
        return f"it sees images of {theirs}, and the data are of {ours}"
    if its_config.data.name == config.data.name and not config.data.train_on_validation:
        # The validation split chooses, so that nobody may have learnt it.
        return learnt(its_config.data, config.data)
    return None


def learnt(theirs: ConfigDict, ours: ConfigDict) -> str | None:
    """Why another run may have learnt what is held out here, of the same data; or None."""
    if theirs.train_on_validation:
        return "it has learnt its validation split, on which is chosen here"
    same_kind = (theirs.validation < 1) == (ours.validation < 1)  # both numbers, or both fractions
    if same_kind and theirs.validation >= ours.validation:
        return None
    return (
        f"it held out {theirs.validation} images of {ours.name} for validation and here "
        f"{ours.validation} are, some of which it {'has' if same_kind else 'may have'} learnt"
    )


def _renormalize(
    ours: folder.DataFacts, theirs: folder.DataFacts
) -> Callable[[Float[Array, "B H W C"]], Float[Array, "B H W C"]]:
    """From inputs normalised by our mean and deviation to those normalised by the teacher's."""
    if (ours.mean, ours.std) == (theirs.mean, theirs.std):
        return lambda inputs: inputs
    (mean, std), (its_mean, its_std) = ours.normalization, theirs.normalization
    scale, shift = jnp.asarray(std / its_std), jnp.asarray((mean - its_mean) / its_std)
    return lambda inputs: inputs * scale + shift
