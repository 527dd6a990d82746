"""The training loop: epochs of a task, validation, checkpoints, logs."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import optax
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from seenn_jax import devices
from seenn_jax.data import Dataset
from seenn_jax.errors import Terminated, UserError
from seenn_jax.run import checkpoints, stored
from seenn_jax.training.ending import Asked, AskedToEnd
from seenn_jax.training.logs import ScalarLog, progress_bar

STEPS = "steps"  # how many, among the sums of their metrics
RATE = "rate"  # images a second, beside the sums of an epoch that is not validated yet
REWINDS = "rewinds"  # of a run so far
ANOTHER = 0x9E3779B9  # from one seed to the next that has little to do with it


class NotFinite(UserError):
    """A loss, a gradient or a logit that is not finite; `what` and when, in words."""

    def __init__(self, what: str, advice: str):
        super().__init__(f"{what} and must be finite: {advice}")
        self.what = what


class Validation(NamedTuple):
    """What a validation found."""

    score: float  # the best checkpoint has the largest; NaN where a logit is
    scalars: dict[str, float]
    text: str


def nothing() -> None:
    """Close nothing."""


def unchanged(state: Any) -> Any:
    """The same state."""
    return state


class Task(NamedTuple):
    """What `run_task` trains.

    Attributes:
      steps: `epoch -> (state -> (state, metrics, number of steps taken))`, compiled, which may take
        minutes; metrics are means over these steps, among them loss, accuracy and gradient_norm.
      validate: `state -> Validation`.
      learning_rate: by step.
      scalars: `epoch -> scalars` to log with it.
      work: of each epoch, in images times timesteps, for the progress bar.
      close: called when training ends, in whatever way.
      prepare: `state -> state` that is validated and saved; of what it gave it gives the same.
    """

    steps: Callable[[int], Callable[[Any], tuple[Any, dict, int]]]
    validate: Callable[[Any], Validation]
    learning_rate: optax.Schedule
    scalars: Callable[[int], dict[str, float]]
    work: list[int]
    close: Callable[[], None] = nothing
    prepare: Callable[[Any], Any] = unchanged


def total_steps(config: ConfigDict, dataset: Dataset) -> int:
    """Steps of all epochs."""
    return dataset.train.size // config.batch_size * config.epochs


def run_task(
    config: ConfigDict,
    workdir: Path,
    console: Console,
    what: str,
    dataset: Dataset,
    state: Any,
    make_task: Callable[[Any, ConfigDict], tuple[Any, Task]],
    started: float,
) -> None:
    """Run the epochs of a task in `workdir`, from its latest checkpoint if it has one.

    Args:
      config, workdir, console: as for `train`.
      what: is trained, in words.
      dataset: that of `open_data`.
      state: the initial one, which has a `step`.
      make_task: `(state to start from, config) -> (state, task)`, called if there is anything to
        do; the config has another seed after a rewind.
      started: `time.perf_counter()` at the beginning, reading the data included.
    """
    steps_per_epoch = total_steps(config, dataset) // config.epochs
    latest = max(checkpoints.steps(workdir), default=None)
    if (
        latest is not None
        and latest >= total_steps(config, dataset)
        and stored.score(workdir, latest) > -math.inf
    ):
        console.print(f"{workdir} is trained: all {config.epochs} epochs are done.")
        return
    if latest is not None:
        epochs, steps = divmod(latest, steps_per_epoch)
        within = f" and {steps} of {steps_per_epoch} steps" if steps else ""
        console.print(f"Continuing {workdir} after epoch {epochs}{within}.")
    console.print(f"Training {what}, in {workdir}.")
    initial, rewinds = jax.device_get(state) if config.rewinds else state, 0
    while True:
        state, beside = initial, {}
        if latest is not None:
            state, beside = checkpoints.resumed(workdir, latest, initial)
            if latest % steps_per_epoch == 0 and stored.score(workdir, latest) > -math.inf:
                beside = {name: beside[name] for name in {REWINDS} & beside.keys()}
        rewinds = max(rewinds, int(beside.pop(REWINDS, 0)))
        try:
            _run(config, workdir, console, steps_per_epoch, state, make_task, beside, rewinds)
            break
        except NotFinite as error:
            if rewinds >= config.rewinds:
                raise
            rewinds, latest = rewinds + 1, max(checkpoints.steps(workdir), default=None)
            console.print(
                f"{error.what}: back to step {latest or 0}, from where the data come in another "
                f"order (rewind {rewinds} of at most {config.rewinds})."
            )
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    console.print(f"Trained in {minutes} min {seconds} s; the run is in {workdir}.")


def _run(
    config: ConfigDict,
    workdir: Path,
    console: Console,
    steps_per_epoch: int,
    state: Any,
    make_task: Callable[[Any, ConfigDict], tuple[Any, Task]],
    sums: dict[str, float],
    rewinds: int,
) -> None:
    """From a state to the end; the arguments as for `run_task` and `_Loop`."""
    step = int(state.step)
    # What is computed again is logged again: steps after this one, and an epoch to be validated.
    logged = step - _to_be_validated(step, steps_per_epoch, sums)
    seeded = config.copy_and_resolve_references()
    seeded.seed = (config.seed + rewinds * ANOTHER) % 2**32
    state, task = make_task(devices.replicate(state), seeded)
    # Of several processes the first logs.
    first = jax.process_index() == 0
    with (
        checkpoints.open_checkpoints(workdir) as manager,
        contextlib.closing(task),
        ScalarLog(workdir, logged, rewinds) if first else contextlib.nullcontext() as log,
        progress_bar(console) as bar,
        AskedToEnd() as end,
    ):
        _Loop(config, task, steps_per_epoch, manager, log, bar, end, sums, rewinds).run(state)


def _to_be_validated(step: int, steps_per_epoch: int, sums: dict[str, float]) -> bool:
    """Whether a checkpoint is of the end of an epoch, and SIGTERM came while that was validated."""
    return step % steps_per_epoch == 0 and sums.get(STEPS, 0) > 0


class _Loop:
    """The epochs of a task: what they share."""

    def __init__(
        self,
        config: ConfigDict,
        task: Task,
        steps_per_epoch: int,
        manager: checkpoints.Manager,
        log: ScalarLog | None,
        bar: Progress,
        end: AskedToEnd,
        sums: dict[str, float],
        rewinds: int,
    ):
        self.beside = {REWINDS: float(rewinds)} if rewinds else {}
        self.config, self.task, self.steps_per_epoch = config, task, steps_per_epoch
        self.manager, self.log, self.bar, self.end = manager, log, bar, end
        # Of the metrics of an epoch's steps so far, and the number of these steps.
        self.sums = {STEPS: 0.0} | sums
        self.saved = -1  # the step of the last checkpoint of this process
        self.shown = bar.add_task("", total=sum(task.work), status="")

    def run(self, state: Any) -> None:
        """All epochs from that of the state."""
        self.started = int(state.step)
        first = self.started // self.steps_per_epoch
        first -= _to_be_validated(self.started, self.steps_per_epoch, self.sums)
        for epoch in range(first, self.config.epochs):
            self._show(epoch, 0.0)
            state, rate = self._epoch(state, epoch)
            if self._validates(epoch):
                state = self.task.prepare(state)
            self._end_epoch(state, epoch, rate)
            self._show(epoch, 1.0)
            self.sums = {STEPS: 0.0}

    def _validates(self, epoch: int) -> bool:
        """Whether an epoch ends with a validation, and a checkpoint."""
        done = epoch + 1
        return done % self.config.validate_every == 0 or done == self.config.epochs

    def _show(self, epoch: int, share: float, **fields: Any) -> None:
        """So much of an epoch is done."""
        work = self.task.work
        self.bar.update(self.shown, completed=sum(work[:epoch]) + work[epoch] * share, **fields)

    def _epoch(self, state: Any, epoch: int) -> tuple[Any, float]:
        """(state after the steps of an epoch, images a second)."""
        config = self.config
        pending: Any = None
        step, end = int(state.step), (epoch + 1) * self.steps_per_epoch
        images = self.steps_per_epoch * config.batch_size
        # Of a run that resumes in the middle of an epoch.
        before = (step - epoch * self.steps_per_epoch) * config.batch_size
        if step < end:
            call = self._meanwhile(lambda: self.task.steps(epoch), state, step)
        started, done = time.perf_counter(), 0  # compiled by now
        while step < end:
            if self.end.now():
                self._read(pending, step)  # What is saved is finite.
                self._end_here(state, step)
            state, measured, taken = call(state)
            step += taken
            # Read the metrics of one call behind, so that the device never waits for the host.
            last = self._read(pending, step)
            if last:
                done += taken * config.batch_size
                rate = done / (time.perf_counter() - started)
                self._show(
                    epoch,
                    (before + done) / images,
                    description=f"epoch {epoch + 1}/{config.epochs}",
                    status=f"loss {last['loss']:.3f}  accuracy {last['accuracy']:.1%}  "
                    f"{rate:,.0f} images/s",
                )
            pending = measured, taken
            every = config.checkpoint_every
            if every and step < end and step // every > (step - taken) // every:
                self._read(pending, step)  # What is saved is finite.
                pending = None
                self._save(state, step, -math.inf, self.sums)
        self._read(pending, step)
        # Of the whole epoch: a GPU's host may wait in a call for its steps, so that the time from
        # one reading to another says little of the steps between them.
        rate = (images - before) / (time.perf_counter() - started)
        return state, self.sums.pop(RATE, rate)

    def _read(self, pending: tuple[dict, int] | None, step: int) -> dict[str, float]:
        """The metrics of a call and the steps it took, added to the sums; {} of no call."""
        if pending is None:
            return {}
        measured, taken = pending
        values = _read_metrics(measured, self.config, step)
        for name, value in (values | {STEPS: 1}).items():
            self.sums[name] = self.sums.get(name, 0.0) + taken * value
        return values

    def _save(
        self, state: Any, step: int, score: float, sums: dict[str, float] | None = None
    ) -> None:
        if step == self.started:  # which was to be validated yet
            checkpoints.set_score(self.manager, step, score)
        else:
            checkpoints.save(self.manager, step, state, score, self.beside | (sums or {}))
        self.saved = step

    def _meanwhile(self, work: Callable[[], Any], state: Any, step: int) -> Any:
        """What `work` gives; after SIGTERM the state is saved at once, and training ends."""
        try:
            return self.end.meanwhile(work)
        except Asked:
            self._end_here(state, step)

    def _end_here(self, state: Any, step: int) -> NoReturn:
        """Save the state, unless it is, and end; the same command continues from it."""
        if step not in (self.saved, self.started):
            self._save(state, step, -math.inf, self.sums)
        checkpoints.finish(self.manager)
        raise Terminated(
            f"ended by SIGTERM after step {step}, which is saved: the same command continues there"
            if step
            else "ended by SIGTERM before the first step: the same command begins again"
        )

    def _end_epoch(self, state: Any, epoch: int, rate: float) -> None:
        """Validate, log, save and say."""
        config, step = self.config, (epoch + 1) * self.steps_per_epoch
        found = None
        if self._validates(epoch):
            self.sums[RATE] = rate  # of no step that comes after SIGTERM
            found = self._meanwhile(lambda: self.task.validate(state), state, step)
            _check_finite("a logit on the validation split", found.score, config, step)
            del self.sums[RATE]
        steps = self.sums.pop(STEPS)
        mean = {name: total / steps for name, total in self.sums.items()}
        # Of the timesteps that are drawn the steps themselves tell.
        scalars = self.task.scalars(epoch) | {f"train/{name}": x for name, x in mean.items()}
        scalars |= {
            "epoch": epoch + 1,
            "train/learning_rate": float(self.task.learning_rate(step - 1)),
            "train/images_per_second": rate,
            **(found.scalars if found else {}),
        }
        # Before the checkpoint: a resumed run drops what was logged after its checkpoint, and what
        # a killed one has not logged before it never comes again.
        if self.log is not None:
            self.log.write(step, scalars)
        if found is not None:
            # Where nothing is held out, the last is taken for the best.
            learnt = config.data.train_on_validation
            self._save(state, step, float(step) if learnt else found.score)
            split = "learnt" if learnt else "validation"
            self.bar.console.print(
                f"epoch {epoch + 1:3}/{config.epochs}  loss {mean['loss']:.4f}  "
                f"train {mean['accuracy']:.2%}  {split} {found.text}  {rate:,.0f} images/s",
                highlight=False,
            )


def images_in_words(config: ConfigDict, dataset: Dataset) -> str:
    """How many images are learnt, and how many are not."""
    held_out = 0 if config.data.train_on_validation else dataset.validation.size
    return f"{dataset.train.size:,} images, {held_out:,} held out for validation"


def _read_metrics(metrics: dict, config: ConfigDict, step: int) -> dict[str, float]:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    _check_finite("the loss", values["loss"], config, step)
    # Spikes can hide a NaN from the loss: NaN >= threshold is False.
    _check_finite("the norm of the gradient", values["gradient_norm"], config, step)
    return values


def _check_finite(what: str, value: float, config: ConfigDict, step: int) -> None:
    if not math.isfinite(value):
        precise = config.model.dtype != "bfloat16"
        raise NotFinite(
            f"{what} became {value} by step {step}",
            f"lower `config.optimizer.learning_rate` (now {config.optimizer.learning_rate})"
            f"{'' if precise else ' or use `config.model.dtype`=float32'}, in another `workdir` if "
            "this one has checkpoints; they are as they were, and with a larger `config.rewinds` "
            f"(now {config.rewinds}) the same command goes on from them with other batches",
        )
