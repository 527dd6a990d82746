"""What a report shows beside the figures: images, how training went, the config."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from seenn_jax.config import default_config
from seenn_jax.evaluation.answers import PerImage
from seenn_jax.run import folder
from seenn_jax.run.inference import Predictor
from seenn_jax.run.settings import flat
from seenn_jax.ticks import summed

EXAMPLES = 24  # images of each kind


class Example(NamedTuple):
    """An image, and what became of it.

    Attributes:
      image: [H, W, C], as it is stored; of event data the sum of its frames.
      label, answer: names of classes, the second at the exit.
      timesteps: taken, from 1.
      confidence: at the exit.
    """

    image: Shaped[np.ndarray, "H W C"]
    label: str
    answer: str
    timesteps: int
    confidence: float


class Details(NamedTuple):
    """What a report shows beside the figures.

    Attributes:
      examples: {"easiest", "hardest", "wrong": images}, `EXAMPLES` of each at most.
      training: scalars by name, of each epoch; empty where the run has none.
      config: (name, value, default) of each setting.
    """

    examples: dict[str, list[Example]]
    training: list[dict[str, float | int]]
    config: list[tuple[str, Any, Any]]


def details(run: Predictor, images: Any, found: PerImage) -> Details:
    """The details of an evaluation.

    Args:
      images: [N, ...] of the split; only those that are shown are read.
      found: of each of them.
    """
    chosen = choose(found)
    read = np.unique(np.concatenate([*chosen.values()]))
    shown = dict(zip(read.tolist(), summed(images[read]), strict=True)) if len(read) else {}
    names, sure = run.facts.names, found.sure

    def example(i):
        label, answer = names[found.labels[i]], names[found.predictions[i]]
        return Example(shown[i], label, answer, int(found.timesteps[i]), float(sure[i]))

    examples = {kind: [example(i) for i in which.tolist()] for kind, which in chosen.items()}
    return Details(examples, folder.metrics(run.workdir), _settings(run.config.to_dict()))


def choose(found: PerImage, most: int = EXAMPLES) -> dict[str, Int[np.ndarray, "_"]]:
    """Which images are shown of each kind.

    The easiest leave first, and of these the surest; the hardest leave last, and of these the least
    sure; of the wrong ones the surest come first.
    """
    sure, wrong = found.sure, np.flatnonzero(~found.right)
    return {
        "easiest": np.lexsort((-sure, found.timesteps))[:most],
        "hardest": np.lexsort((sure, -found.timesteps))[:most],
        "wrong": wrong[np.argsort(-sure[wrong], kind="stable")][:most],
    }


def _settings(config: dict) -> list[tuple[str, Any, Any]]:
    defaults = flat(default_config().to_dict())
    return [(name, value, defaults.get(name)) for name, value in flat(config).items()]
