"""What training starts from: the weights of a trained network (fine-tuning)."""

from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from seenn_jax.errors import UserError
from seenn_jax.run import weights
from seenn_jax.run.folder import DataFacts
from seenn_jax.run.tensors import differing, of_model, to_model
from seenn_jax.training.teacher import learnt

LAST = "head."  # how the names of the last layer begin


def start_from(
    config: ConfigDict, model: nnx.Module, facts: DataFacts, console: Console
) -> tuple[nnx.Module, dict | None]:
    """(the network with the weights of `config.init_weights`, what they are in plain values).

    The last layer stays fresh where the weights are of other classes.

    Args:
      model: of the config, with fresh parameters; it stays as it is where there are no weights.

    Raises:
      UserError: there are no such weights, they are damaged, of another architecture, or have
        learnt what is held out here.
    """
    if not config.init_weights:
        return model, None
    trained = weights.opened(config.init_weights)
    its_data = trained.config.data
    if its_data.name == config.data.name and not config.data.train_on_validation:
        why = learnt(its_data, config.data)
        if why:  # the validation split chooses, so that nobody may have learnt it
            raise UserError(
                f"`config.init_weights` is {config.init_weights}, which can't be started from: "
                f"{why}; set `config.data.validation` as it was there, or less"
            )
    source, step = trained.network(trained.config)
    theirs, ours = of_model(source), of_model(model)
    fresh = [name for name in ours if name.startswith(LAST) and _others(trained.facts, facts)]
    merged = {name: ours[name] if name in fresh else tensor for name, tensor in theirs.items()}
    misfit = differing(merged, ours)
    if misfit:
        raise UserError(
            f"`config.init_weights` is {config.init_weights}, whose network is not "
            f"{config.model.name} of width {config.model.width} for {config.data.name}: "
            f"{misfit[0]}; give weights of the same architecture, or change the config "
            "to theirs"
        )
    which = "all layers but the last, which is of other classes" if fresh else "all layers"
    console.print(f"Starting from {config.init_weights}: {which}.")
    about = {"place": str(config.init_weights), "checkpoint_step": step, "fresh": fresh}
    return to_model(model, merged, "it"), about | {"sha256": trained.about.get("sha256")}


def _others(theirs: DataFacts, ours: DataFacts) -> bool:
    """Whether two data sets have other classes, by their names or, without names, their number."""
    named = bool(theirs.classes and ours.classes)
    return theirs.classes != ours.classes if named else theirs.num_classes != ours.num_classes
