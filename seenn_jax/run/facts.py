"""What a run knows of its data, kept in run.json."""

from typing import Any, NamedTuple

import numpy as np

from seenn_jax.data import Dataset, Stream, channel_statistics, count_statistics
from seenn_jax.data.events.i2e import I2E
from seenn_jax.data.images import MEAN, STD
from seenn_jax.run import records
from seenn_jax.run.settings import MOST
from seenn_jax.ticks import frames, image_shape


class DataFacts(NamedTuple):
    """What a network must know of its data: to be built, and to see its inputs normalised."""

    image_shape: tuple[int, int, int]  # of event data, that of one frame
    num_classes: int
    mean: list[float]
    std: list[float]
    frames: int = 0  # of event data, one for each timestep; 0 of still images
    classes: tuple[str, ...] = ()  # their names, where the data have any
    dtype: str = "uint8"  # of what is stored; "uint16" of event counts that need it
    # Of images that frames are made of: (height, width, channels); means and deviations.
    still: tuple[int, int, int] | tuple[()] = ()
    still_statistics: tuple[float, ...] = ()

    def stored(self, timesteps: int) -> tuple[int, ...]:
        """The shape of one sample as it is stored, with the frames of so many timesteps."""
        return self.still or (*(timesteps,) * bool(self.frames), *self.image_shape)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes; their numbers where the data have no names."""
        return self.classes or tuple(map(str, range(self.num_classes)))

    def same_images(self, other: "DataFacts") -> bool:
        """Whether both are of the same images; those of older runs have no names of classes."""
        if self.classes and other.classes:
            return self == other
        return self._replace(classes=()) == other._replace(classes=())

    def encoded(self, encoding: I2E, timesteps: int) -> "DataFacts":
        """The facts of frames that are made of these images, whose events stay 0 or 1."""
        return self._replace(
            image_shape=(encoding.side, encoding.side, 2),
            mean=[0.0, 0.0],
            std=[1 / 255, 1 / 255],
            frames=timesteps,
            still=self.image_shape,
            still_statistics=(*self.mean, *self.std),
        )

    @staticmethod
    def of(dataset: Dataset) -> "DataFacts":
        """The facts of a data set; mean and standard deviation are those of its train split.

        Of one that is streamed they are ImageNet's.
        """
        if isinstance(dataset.train, Stream):
            shape = (dataset.train.side, dataset.train.side, 3)
            return DataFacts(
                shape, dataset.num_classes, list(MEAN), list(STD), classes=dataset.classes
            )
        images = dataset.train.images
        count = frames(images)
        mean, std = (count_statistics if count else channel_statistics)(images)
        shape = image_shape(images)
        return DataFacts(
            shape,
            dataset.num_classes,
            mean.tolist(),
            std.tolist(),
            count,
            dataset.classes,
            images.dtype.name,
        )

    @property
    def normalization(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, std) of each channel, of values scaled to 0..1; see `data.normalize`."""
        return np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)


def facts_of(content: dict) -> DataFacts:
    """What a run knows of its data; the errors of `folder.config_of`."""
    data = dict(content["data"])
    classes = tuple(data.pop("classes", ()))
    still = {name: tuple(data.pop(name, ())) for name in ("still", "still_statistics")}
    data |= still | {"image_shape": tuple(data["image_shape"]), "classes": classes}
    facts = DataFacts(**data)
    channels = facts.image_shape[-1:] * 2
    good = {
        "image_shape": len(facts.image_shape) == 3 and all_at_least(1, facts.image_shape),
        "num_classes": all_at_least(1, [facts.num_classes]),
        "frames": all_at_least(0, [facts.frames]),
        "mean and std": (len(facts.mean), len(facts.std)) == channels
        and all(map(records.is_number, (*facts.mean, *facts.std))),
        "dtype": facts.dtype in ("uint8", "uint16"),
        "still": len(facts.still) in (0, 3)
        and all_at_least(1, facts.still)
        and len(facts.still_statistics) == 2 * sum(facts.still[2:])
        and all(map(records.is_number, facts.still_statistics)),
        "classes": len(classes) in (0, facts.num_classes)
        and all(isinstance(name, str) for name in classes),
    }
    wrong = [name for name, fine in good.items() if not fine]
    if wrong:
        raise ValueError(f"the {wrong[0]} of its data can't be")
    return facts


def all_at_least(least: int, values: Any) -> bool:
    """Whether all are whole numbers from this one on."""
    return all(type(value) is int and least <= value <= MOST for value in values)
