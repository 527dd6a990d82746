"""A loaded run: its network on all devices, and what can be asked of it."""

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from seenn_jax import devices, engine, exits
from seenn_jax.config import is_policy
from seenn_jax.data import Dataset, Split, Stream, normalize
from seenn_jax.data.events.i2e import I2E
from seenn_jax.energy import layers
from seenn_jax.engine.common import BATCH, check_at_least_one
from seenn_jax.errors import UserError
from seenn_jax.exits import Answers, Choice, Chosen, Exit, Given, check_kind, made, prices
from seenn_jax.models import conversion, is_ann
from seenn_jax.models.network import inference_network
from seenn_jax.models.precision import PRECISIONS, Precision
from seenn_jax.run import build, folder, weights
from seenn_jax.run.prediction import Predictions, answers, joined, joined_exits, opened, rows_of
from seenn_jax.run.trained import Trained
from seenn_jax.ticks import seen


class Predictor:
    """A loaded run; see `load`.

    Attributes:
      trained: what was loaded; `workdir` is where it lies, `facts` those of its data.
      config: the run's, for inference.
      model: the network that runs, converted if it is one that was an ANN.
      step: training step of its checkpoint.
      kind: "spiking", "converted" or "ANN".
      timesteps: T.
      batch: slots, or images in one forward pass.
      network: as pure functions, for the engines.
    """

    def __init__(
        self,
        trained: Trained,
        config: ConfigDict,
        model: nnx.Module,
        *,
        step: int,
        kind: str,
        precision: str,
        timesteps: int,
        dataset: Dataset | None = None,
        other_data: bool = False,
    ):
        self.trained, self.workdir, self.facts = trained, trained.place, trained.facts
        self.config, self.model = config, model
        self.step, self.kind, self.precision, self.timesteps = step, kind, precision, timesteps
        self.batch, self._other_data = BATCH, other_data
        self._programs: dict[tuple, tuple[Callable, Any]] = {}  # with parameters; `exiting`
        self._compiled: set[tuple[Callable, int]] = set()  # of these, for so many rows; `stream`
        # float64, of parity tests, is no row.
        row = PRECISIONS[precision] if precision in PRECISIONS else Precision()
        self.prepare = row.prepare
        shape = self.facts.image_shape
        self.network = inference_network(model, shape, timesteps, prepare=row.prepare)
        if dataset is not None:
            self.dataset = dataset

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data of the run; of event data the first T frames."""
        return build.open_data(self.config, self.facts, self.timesteps, self._other_data)

    @property
    def validation(self) -> Split | Stream:
        """Its validation split, to choose on; an error where the network has learnt it."""
        if self.config.data.train_on_validation and not self._other_data:
            raise UserError(
                f"{self.workdir} has learnt its validation split (`config.data.train_on_validation`"
                "), so that nothing can be chosen: give a `threshold` that was fixed beforehand"
            )
        return self.dataset.validation

    def transform(self, images: Array) -> Array:
        """Images as they are stored, or frames that are made of them, normalised."""
        mean, std = self.facts.normalization
        return normalize(images, mean, std, self.config.model.dtype)

    @functools.cached_property
    def encoding(self) -> I2E | None:
        """What makes events of still images, where the network sees such."""
        return build.encoding(self.config) if self.facts.still else None

    def inputs(self, images: Array) -> Array:
        """What the network sees of images as they are stored, all ticks at once."""
        return self.transform(build.frames_of(self.config, self.facts, self.timesteps)(images))

    def over_images(
        self, function: Callable[[Any, Array], Any], params: Any
    ) -> Callable[[Any], Any]:
        """`images [N, ...] -> function(params, images)`, a batch at a time, on all devices."""

        def share(params, images, count):
            return engine.in_batches(lambda x: function(params, x), images, self.batch)

        compiled = devices.for_inference(engine.over_devices(share))
        params = devices.replicate(params)

        def over_images(images):
            parts = engine.in_chunks(functools.partial(compiled, params), engine.chunks(images))
            return jax.tree.map(lambda *x: np.concatenate(x), *parts)

        return over_images

    @functools.cached_property
    def logits(self) -> Callable[[Any], Float[np.ndarray, "N T K"]]:
        """`images [N, ...] -> logits of every tick`, all ticks at once."""
        return self.over_images(
            lambda params, x: self.network.logits(params, self.inputs(x)), self.network.params
        )

    @property
    def thresholds(self) -> dict[str, float] | None:
        """Of ReLUs that were converted, by their place; None of other networks."""
        found = self.kind == "converted" and self.config.activation == "relu"
        return conversion.thresholds_of(self.model) if found else None

    @functools.cached_property
    def temperatures(self) -> Float[np.ndarray, "T"] | None:
        """What divides the cumulative logits where none are fitted."""
        if self.kind != "converted":
            return None
        return np.full(self.timesteps, conversion.EXIT_TEMPERATURE)

    def answers(self, split: Split | Stream, temperatures: Any) -> Answers:
        """One forward pass over a split.

        Raises:
          UserError: a logit that is not finite.
        """
        logits = self.logits(split.images)
        exits.check_finite(logits)
        cumulative = exits.accumulate(logits, temperatures)
        predictions = np.asarray(cumulative.argmax(-1))
        correct = predictions == split.labels[:, None]
        return Answers(split.images, split.labels, cumulative, predictions, correct)

    def exiting(
        self, exit: Exit, value: float | int | None, temperatures: Any, method: str
    ) -> functools.partial[engine.Exited]:
        """`images, count -> what exits leave`, on all devices; one program for all values."""
        scale = None if temperatures is None else exits.logit_scale(self.timesteps, temperatures)
        key = (exit.name, method, self.batch, scale is None)
        if key not in self._programs:
            params = devices.replicate((self.network.params, exit.params))
            self._programs[key] = self._program(exit, method), params
        program, params = self._programs[key]
        value = None if value is None else np.float32(value)
        return functools.partial(program, (*params, *devices.replicate((value, scale))))

    def _program(self, exit: Exit, method: str) -> Callable[[Any, Any, Any], engine.Exited]:
        batch = self.batch

        def share(operands, images, count):
            params, exit_params, value, scale = operands
            return engine.run_network(
                method,
                self.network,
                params,
                images,
                made.criterion_of(exit, value, exit_params, images),
                self.timesteps,
                batch,
                transform=self.transform,
                encoding=self.encoding,
                count=count,
                scale=scale,
            )

        return devices.for_inference(engine.over_devices(share))

    def run(
        self, images: Any, exit: Exit, value: float | int | None, temperatures: Any, method: str
    ) -> tuple[engine.Exited, float]:
        """(what exits leave, seconds it took once compiled), on all devices."""
        program = self.exiting(exit, value, temperatures, method)
        first = next(engine.chunks(images))
        jax.block_until_ready(program(first, np.int32(len(first))))
        started = time.perf_counter()
        parts = list(engine.in_chunks(program, engine.chunks(images)))
        seconds = time.perf_counter() - started
        return joined_exits(parts), seconds

    def predict(
        self, images: Any, *, exit: str | None = None, choice: Choice | None = None
    ) -> Predictions:
        """Classify images, each until it exits.

        Args:
          images: uint8 [N, H, W, C] (event data [N, T, H, W, C]), of the shape that the run was
            trained on. Or the path of an image file or of a folder of them, or a list of paths:
            these are brought to that shape as in evaluation. What can't be read is left out, and
            named in the log.
          exit: a key of `EXITS`; None is the one that evaluate.py used last.
          choice: of its value; other than a `Given` it takes the data of the run. None is the
            exit's default or, where `exit` is None, the value that evaluate.py used last.

        Raises:
          UserError: images of another shape, no file that can be read; no evaluation yet, where
            `exit` is None.
        """
        images = self.opened(images)
        return joined(list(self.stream(images, *self.exit_of(exit, choice))))

    def opened(self, images: Any) -> Any:
        """Images of `predict` as an array, or as what is read when it is indexed."""
        return opened(images, self.config, self.facts, self.timesteps)

    def stream(
        self, images: Any, exit: Exit, chosen: Chosen, temperatures: Any
    ) -> Iterator[Predictions]:
        """Predictions of a stretch of images at a time; compiled when it returns.

        Args:
          images: of `opened`.
          exit, chosen, temperatures: of `exit_of`.
        """
        if not len(images):
            return iter(())
        program, rows = self.exiting(exit, chosen.value, temperatures, "slots"), rows_of(images)
        if (program.func, rows) not in self._compiled:
            nothing = np.zeros((rows, *images.shape[1:]), images.dtype)
            jax.block_until_ready(program(nothing, np.int32(0)))
            self._compiled.add((program.func, rows))
        return answers(program, images, self.facts.names)

    def choose(self, exit: Exit, choice: Choice | None, temperatures: Any) -> Chosen:
        """The value of an exit, chosen on the validation split where it must be."""
        check_kind(choice)
        choice = exit.default if choice is None else choice
        exit.check(choice, self.timesteps)
        if choice is None or isinstance(choice, Given):  # nothing is looked at
            return made.chosen_by(exit, choice, None, None)
        answers = self.answers(self.validation, temperatures)
        return made.chosen_by(exit, choice, made.signal_of(exit, answers), answers)

    def exit_of(self, exit: str | None, choice: Choice | None) -> tuple[Exit, Chosen, Any]:
        """(exit, its value, temperatures) of `predict`'s arguments; the same errors."""
        if exit is not None:
            rule, temperatures = made.make_exit(exit, self), self.temperatures
            return rule, self.choose(rule, choice, temperatures), temperatures
        kept = self.trained.exit()
        if kept is None:
            raise UserError(
                f"{self.workdir} has not been evaluated yet, so that it has no exit of its own: "
                f"run python evaluate.py {self.trained.flag}, or say which `exit`"
            )
        if kept["timesteps"] != self.timesteps:
            raise UserError(
                f"`timesteps` is {self.timesteps} and the exit of {self.workdir} was chosen for "
                f"{kept['timesteps']}: give that, or say which `exit`"
            )
        rule, temperatures = made.make_exit(kept["exit"], self), kept["temperatures"]
        temperatures = None if temperatures is None else np.float32(temperatures)
        if choice is not None:
            return rule, self.choose(rule, choice, temperatures), temperatures
        return rule, Chosen(kept["threshold"], kept["threshold_rule"]), temperatures

    def macs(self) -> int:
        """Multiply-accumulates of one image and timestep."""
        return _dense_macs(self.model, self.facts)

    @functools.cached_property
    def _policy(self) -> tuple[nnx.Module, Any]:
        if not is_policy(self.config):
            raise UserError(
                f"exit 'policy' needs a run with a policy, and {self.workdir} has none: train one "
                "with python train.py --config=configs/digits_policy.py or its like, or choose "
                "another exit"
            )
        model = self.trained.policy(self.config)
        return model, inference_network(model, self.facts.image_shape, 1)

    @property
    def policy_params(self) -> Any:
        """Parameters of the policy network."""
        return self._policy[1].params

    def policy_macs(self) -> int:
        """Multiply-accumulates of the policy for one image."""
        return _dense_macs(self._policy[0], self.facts)

    def policy_logits(self, params: Any, images: Array) -> Float[Array, "N C"]:
        """Of the candidates, for all images; pure."""
        network = self._policy[1]
        outputs = engine.in_batches(
            lambda x: network.logits(params, self.transform(seen(x))), images, self.batch
        )
        return prices.split_outputs(outputs[:, 0], len(self.config.policy.candidates))[0]

    def policy_choices(self, images: Any) -> Float[np.ndarray, "N C"]:
        """`policy_logits` of stored images, on all devices."""
        network, count = self._policy[1], len(self.config.policy.candidates)
        outputs = self.over_images(
            lambda params, x: network.logits(params, self.transform(seen(x))), network.params
        )(images)
        chosen = np.asarray(prices.split_outputs(outputs[:, 0], count)[0])
        exits.check_finite(chosen)
        return chosen


def load(
    source: str | Path | Trained,
    *,
    precision: str | None = None,
    timesteps: int | None = None,
    ann: bool = False,
    percentile: float | None = None,
    data_dir: str | None = None,
    data_name: str | None = None,
    checkpoint: int | None = None,
) -> Predictor:
    """Load the best checkpoint of a run, or weights; an ordinary network (ANN) is converted.

    Args:
      source: the folder of a run, or weights: a name such as "digits-resnet8", or the path of a
        file that ends in .safetensors.
      precision: of inference, a key of `PRECISIONS`; None is the run's dtype. int8 is for spikes
        and the weights that meet them, the rest stays in the run's.
      timesteps: T; None is the run's. Of event data the first T frames.
      ann: the ANN itself, at T = 1, instead of what it is converted to.
      percentile: of the activations of a run with ReLUs, where their thresholds are put; None is
        `conversion.PERCENTILE`, or what the weights have.
      data_dir, data_name: where the data have moved, and other data; None is the run's.
      checkpoint: the step of one; None is the best.

    Raises:
      UserError: no run, no checkpoint, no such weights, damaged ones, or of another architecture;
        an argument that is not allowed or has no meaning here; data that don't fit.
    """
    trained = weights.opened(source, checkpoint)
    config, facts = trained.config.copy_and_resolve_references(), trained.facts
    build.move_data(config, data_dir, data_name)
    if ann:
        check_ann("ann", trained.place, config)
    converted = is_ann(config) and not ann
    timesteps = 1 if ann else config.timesteps if timesteps is None else timesteps
    check_at_least_one("timesteps", timesteps)
    relu = converted and config.activation == "relu"
    _check_percentile(percentile, relu, trained.place, config.activation, ann)
    if precision is not None:
        with config.unlocked():
            config.model.dtype = PRECISIONS[precision].dtype or config.model.dtype
    (model, step), dataset = trained.network(config), None
    if converted:
        thresholds = trained.thresholds if percentile is None else None
        if relu and thresholds is None:
            dataset = build.open_data(config, facts, timesteps, bool(data_name))
        model = build.convert(model, config, facts, dataset, percentile, thresholds)
    return Predictor(
        trained,
        config,
        model,
        step=step,
        kind="ANN" if ann else "converted" if converted else "spiking",
        precision=precision or config.model.dtype,
        timesteps=timesteps,
        dataset=dataset,
        other_data=bool(data_name),
    )


def _check_percentile(
    percentile: float | None, relu: bool, place: Path, activation: str, ann: bool
) -> None:
    if percentile is not None and not relu:
        raise UserError(
            f"`percentile`={percentile} is for converting a run of `config.activation`=relu, and "
            f"{place} is of {activation!r}{' and not converted' * ann}: leave it out"
        )


def check_ann(setting: str, workdir: Path, config: ConfigDict) -> None:
    """Raise a UserError where a setting for runs of ANNs is asked of another one."""
    if not is_ann(config):
        raise UserError(
            f"`{setting}` is for a run whose network was an ANN, and {workdir} is of a directly "
            "trained spiking network: leave it out, or give the `workdir` of a run of "
            "configs/digits_qcfs.py"
        )


def _dense_macs(model: nnx.Module, facts: folder.DataFacts) -> int:
    """Multiply-accumulates of one image and timestep."""
    model = nnx.view(model, use_running_average=True)
    return sum(layer.macs for layer in layers(model, facts.image_shape))
