"""Evaluate a run with early exit: the validation split chooses, the asked split is reported."""

import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seenn_jax import exits
from seenn_jax.engine import METHODS
from seenn_jax.errors import UserError, check_choice
from seenn_jax.evaluation.answers import per_image
from seenn_jax.evaluation.details import Details
from seenn_jax.evaluation.details import details as details_of
from seenn_jax.evaluation.figures import figures
from seenn_jax.exits import EXITS, Choice, Exit, Risk, check_kind, make_exit
from seenn_jax.run.inference import Predictor, load
from seenn_jax.run.trained import Trained
from seenn_jax.run.weights import opened

SPLITS = ("test", "validation", "train")


def evaluate(
    workdir: str | Path | Trained,
    *,
    exit: str = "confidence",
    choice: Choice | None = None,
    temperature: bool = False,
    method: str = "slots",
    split: str = "test",
    slots: int | None = None,
    precision: str | None = None,
    timesteps: int | None = None,
    ann: bool = False,
    percentile: float | None = None,
    energy: bool = False,
    data_dir: str | None = None,
    data_name: str | None = None,
    checkpoint: int | None = None,
    details: Callable[[Details], object] | None = None,
) -> dict:
    """Evaluate the best checkpoint of a run; an ordinary network (ANN) is converted first.

    Args:
      workdir: the run, or weights, as for `load`.
      exit: a key of `EXITS`; "full" runs all T timesteps for every sample.
      choice: of the exit's value; None is the exit's own way.
      temperature: divide the logits at each t by one fitted on validation (Guo et al. 2017).
      method, split: of `METHODS`, by which exits are run; of `SPLITS`, whose figures are returned.
      slots: samples under way, or images in a forward pass; None: 256, or all of a smaller split.
      precision, timesteps, percentile, data_dir, data_name, checkpoint: as for `load`.
      ann: evaluate the ANN itself, once ("full", T = 1).
      energy: run all timesteps once more and count operations, as in `energy.account`.
      details: is called with what a report shows beside: the last argument of `write_report`.

    Returns: the result, as `write_report` takes it; accuracies and shares are fractions of 1.

    Raises:
      UserError: as `load`; an argument that is not allowed, or data that are not there.
    """
    trained = opened(workdir, checkpoint)  # whose plugins may bring the exit
    _check(exit, method, split, ann and energy)
    asked: Any = {"timesteps": timesteps, "percentile": percentile, "data_dir": data_dir}
    run = load(trained, precision=precision, ann=ann, data_name=data_name, **asked)
    rule, choice = _exit(run, "full" if ann else exit, choice, temperature)
    samples = run.validation if split == "validation" else getattr(run.dataset, split)
    run.batch = _slots(slots, split, len(samples.labels), run.batch)
    temperatures = _temperatures(run, temperature)
    chosen = run.choose(rule, choice, temperatures)
    answers = run.answers(samples, temperatures)
    exited, seconds = run.run(samples.images, rule, chosen.value, temperatures, method)
    each = per_image(answers, exited)
    found = figures(run, rule, chosen, choice, answers, each, energy)
    if details is not None:
        details(details_of(run, samples.images, each))
    return found | {
        "split": split,
        "method": method,
        "slots": run.batch,
        "images_per_second": len(samples.labels) / seconds,
        "temperatures": None if temperatures is None else [float(t) for t in temperatures],
    }


def _exit(
    run: Predictor, name: str, choice: Choice | None, temperature: bool
) -> tuple[Exit, Choice | None]:
    """An exit and how its value is chosen, checked before the data are opened."""
    check_kind(choice)
    rule = make_exit(name, run)
    choice = rule.default if choice is None else choice
    rule.check(choice, run.timesteps)
    if temperature and isinstance(choice, Risk):
        raise UserError(
            "`temperature` fits to the validation images on which the guarantee of `risk` is "
            "tested, and would void it: leave one of them out"
        )
    return rule, choice


def _check(exit: str, method: str, split: str, spikes_of_ann: bool) -> None:
    check_choice("split", split, SPLITS)
    check_choice("method", method, METHODS)
    check_choice("exit", exit, EXITS)
    if spikes_of_ann:
        raise UserError(
            "`energy` counts the spikes of a network, and `ann`'s has none: leave `ann` out; "
            "the ANN's own cost stands beside the converted network's"
        )


def _slots(asked: int | None, split: str, samples: int, most: int) -> int:
    if asked is None:
        return min(most, samples)
    if not (isinstance(asked, numbers.Integral) and 1 <= asked <= samples):
        raise UserError(
            f"`slots` is {asked} and the {split} split has {samples} images: give a number from 1 "
            "to that"
        )
    return asked


def _temperatures(run: Predictor, fit: bool) -> Any:
    if not fit:
        return run.temperatures
    validation = run.validation
    return exits.fit_temperatures(
        exits.accumulate(run.logits(validation.images)), validation.labels
    )
