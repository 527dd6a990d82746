"""How near a converted network comes to the ordinary one (ANN) that it was."""

from pathlib import Path

from flax import nnx

from seenn_jax.errors import check_choice
from seenn_jax.evaluation.evaluate import SPLITS
from seenn_jax.models import conversion
from seenn_jax.run import build
from seenn_jax.run.inference import check_ann, load
from seenn_jax.run.trained import Trained

REPORTED = (1, 2, 4, 8, 16, 32)  # timesteps of the report


def conversion_report(
    workdir: str | Path | Trained,
    *,
    split: str = "test",
    precision: str | None = None,
    percentile: float | None = None,
    data_dir: str | None = None,
    data_name: str | None = None,
    checkpoint: int | None = None,
) -> dict:
    """How near a run's converted network comes to its ANN at each t of `REPORTED`.

    Args:
      workdir: a run of an ANN, or its weights.
      split, precision, percentile, data_dir, data_name, checkpoint: as for `evaluate`.

    Returns:
      what `conversion.compare` finds, and workdir, split, activation, quantization_levels,
      precision.

    Raises:
      UserError: as `evaluate`; a run of a directly trained network.
    """
    check_choice("split", split, SPLITS)
    run = load(
        workdir,
        precision=precision,
        percentile=percentile,
        data_dir=data_dir,
        data_name=data_name,
        checkpoint=checkpoint,
    )
    config, facts = run.config, run.facts
    check_ann("conversion_report", run.workdir, config)
    model, _ = run.trained.network(config)
    ann = nnx.view(model, use_running_average=True)
    batches = build.batches(getattr(run.dataset, split), config, facts)
    compared = conversion.compare(ann, run.model, batches, REPORTED)
    return compared | {
        "workdir": str(run.workdir),
        "dataset": config.data.name,
        "split": split,
        "activation": config.activation,
        "quantization_levels": config.quantization_levels if config.activation == "qcfs" else None,
        "precision": config.model.dtype,
    }
