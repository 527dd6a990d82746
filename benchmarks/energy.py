"""Joules of an image on an NVIDIA card, of all T timesteps and of slots, beside the counted ones.

    python benchmarks/energy.py --workdir=runs/cifar10 --slots=1024 --json=results/energy_h100.json

Needs `pip install nvidia-ml-py`. The test split lies on the card and is run over and over, for
--seconds each, all T at once and with early exit by turns. Energy is what the card says that it has
taken (NVML's counter; an older card's power is sampled and integrated), and nothing is taken off
it: the power of the idle card stands beside. The host is not in it. Counted are the arithmetic at
45 nm of `seenn_jax.energy` and the moving of data of `seenn_jax.memory`.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import records

from seenn_jax import evaluate, provenance
from seenn_jax.config import default_config
from seenn_jax.engine import chunks
from seenn_jax.errors import UserError, needed
from seenn_jax.exits import Given, make_exit
from seenn_jax.run.inference import Predictor, load

EVERY = 0.02  # seconds between samples of power


# --- The meter -----------------------------------------------------------------------------------


class Spent(NamedTuple):
    """What a measurement found."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """On average."""
        return self.joules / self.seconds


class Meter:
    """The energy of one card.

    Args:
      nvml: the module pynvml, initialised.
      card: number or UUID.
    """

    def __init__(self, nvml: Any, card: str):
        of = nvml.nvmlDeviceGetHandleByIndex if card.isdigit() else nvml.nvmlDeviceGetHandleByUUID
        self.nvml, self.handle = nvml, of(int(card) if card.isdigit() else card)
        try:
            nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
            self.counts = True
        except nvml.NVMLError_NotSupported:
            self.counts = False

    def measure(self, work: Callable[[], Any]) -> tuple[Any, Spent]:
        """(what `work` returns, what the card took meanwhile)."""
        started = time.perf_counter()
        with self._counted() if self.counts else self._sampled() as joules:
            found = work()
            seconds = time.perf_counter() - started
        return found, Spent(joules[0], seconds)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[list[float]]:
        joules: list[float] = []
        before = self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        yield joules
        after = self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        joules.append((after - before) / 1e3)  # of millijoules

    @contextlib.contextmanager
    def _sampled(self) -> Iterator[list[float]]:
        joules: list[float] = []
        samples, over = [self._sample()], threading.Event()

        def watch():
            while not over.wait(EVERY):
                samples.append(self._sample())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield joules
        finally:
            over.set()
            thread.join()
        joules.append(integral([*samples, self._sample()]))

    def _sample(self) -> tuple[float, float]:
        return time.perf_counter(), self.nvml.nvmlDeviceGetPowerUsage(self.handle) / 1e3


def integral(samples: Sequence[tuple[float, float]]) -> float:
    """Joules of (second, watts), in order, by the trapezoidal rule."""
    return sum((b - a) * (p + q) / 2 for (a, p), (b, q) in itertools.pairwise(samples))


@contextlib.contextmanager
def nvml_of_the_driver() -> Iterator[Any]:
    """The module pynvml, initialised.

    Raises:
      UserError: it is not installed, or there is no NVIDIA driver.
    """
    pynvml = needed("measuring energy", "pynvml", "nvidia-ml-py")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise UserError(
            f"measuring energy needs an NVIDIA card and its driver ({error}): use a machine that "
            "has them"
        ) from error
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


# --- What is measured ----------------------------------------------------------------------------


def run_for(seconds: float, call: Callable[[], int]) -> int:
    """How many images `call` has run, over and over until the time is over."""
    images, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        images += call()
    return images


def by_turns(
    meter: Meter, ways: dict[str, Callable[[], int]], seconds: float, repeats: int
) -> dict[str, list[tuple[int, Spent]]]:
    """(images, what they took), `repeats` times of each way, which are run by turns."""
    found: dict[str, list[tuple[int, Spent]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, call in ways.items():
            found[name].append(meter.measure(lambda call=call: run_for(seconds, call)))
            images, spent = found[name][-1]
            print(f"{name:12} {spent.joules / images:.6g} J/image, {spent.watts:.1f} W", flush=True)
    return found


def row_of(name: str, found: Sequence[tuple[int, Spent]], idle: float, counted: dict) -> dict:
    """What one way took, with the spread over its repeats.

    Args:
      idle: watts of the idle card.
      counted: picojoules of an image, by what was counted.
    """
    joules = [spent.joules / images for images, spent in found]
    return {
        "method": name,
        "joules_per_image": statistics.mean(joules),
        "least": min(joules),
        "most": max(joules),
        "watts": statistics.mean(spent.watts for _, spent in found),
        "idle_watts": idle,
        "images_per_second": statistics.mean(images / spent.seconds for images, spent in found),
        **{name: picojoules / 1e12 for name, picojoules in counted.items()},
    }


def words(row: dict) -> str:
    """A row in a line."""
    return (
        f"{row['method']:12} {row['joules_per_image']:.6g} J/image "
        f"({row['least']:.6g} to {row['most']:.6g}) at {row['watts']:.1f} W, idle "
        f"{row['idle_watts']:.1f} W; {row['images_per_second']:,.0f} images/s; counted "
        f"{row['counted_arithmetic']:.3g} J of arithmetic and {row['counted_moving']:.3g} J of "
        "moving"
    )


def ways_of(run: Predictor, threshold: float, images: Any) -> dict[str, Callable[[], int]]:
    """Each way as a function that runs all images, compiled."""
    temperatures, count = run.temperatures, np.int32(len(images))
    images = jax.device_put(images)

    def way(exit, value, method):
        program = run.exiting(make_exit(exit, run), value, temperatures, method)

        def call():
            jax.block_until_ready(program(images, count))
            return int(count)

        call()
        return call

    return {
        "all T": way("full", None, "full"),
        "slots": way("confidence", threshold, "slots"),
    }


def counted(result: dict) -> dict[str, dict[str, float]]:
    """Picojoules of an image by way, as `evaluate` has counted them."""
    energy = result["energy"]

    def of(bill):
        return {"counted_arithmetic": bill(energy), "counted_moving": bill(energy["memory"])}

    return {
        "all T": of(lambda account: account["by_timestep"][-1]["picojoules"]),
        "slots": of(lambda account: account["at_exit"]["picojoules"]),
    }


def card() -> str:
    """Which card CUDA computes on, as NVML knows it."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"


def measured(meter: Meter, asked: argparse.Namespace) -> tuple[dict, Predictor]:
    """(the figures of a record, the run)."""
    if jax.default_backend() != "gpu" or jax.device_count() > 1:
        raise UserError(
            f"JAX computes on {provenance.device()}, and one NVIDIA card is measured: install "
            "jax[cuda13], and set CUDA_VISIBLE_DEVICES to one"
        )
    source, precision = asked.workdir or asked.weights, asked.precision
    choice = None if asked.threshold is None else Given(asked.threshold)
    result = evaluate(source, choice=choice, energy=True, precision=precision)
    run = load(source, precision=precision)
    run.batch = asked.slots
    images = next(chunks(run.dataset.test.images))
    ways = ways_of(run, result["threshold"], images)
    time.sleep(min(5, asked.seconds))  # until the clocks are down
    _, idle = meter.measure(lambda: time.sleep(asked.seconds))
    found = by_turns(meter, ways, asked.seconds, asked.repeats)
    of_counted = counted(result)
    rows = [row_of(name, each, idle.watts, of_counted[name]) for name, each in found.items()]
    kept = ("threshold", "accuracy", "average_timesteps", "timesteps")
    about = {name: result[name] for name in kept}
    by = "counter" if meter.counts else "samples of power"
    return {**about, "slots": asked.slots, "measured_by": by, "rows": rows}, run


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", help="a trained run, or ...")
    parser.add_argument("--weights", default="digits-resnet8", help="... weights")
    parser.add_argument("--precision", help="bfloat16, float32 or int8; else the run's")
    parser.add_argument("--threshold", type=float, help="of confidence; else chosen on validation")
    parser.add_argument("--slots", type=int, default=256, help="at a time, of all T at once too")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each")
    parser.add_argument("--card", help="in NVML; else the first of CUDA_VISIBLE_DEVICES, or 0")
    parser.add_argument("--json", help="add the record to this file")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    asked = arguments()
    with nvml_of_the_driver() as nvml:
        figures, run = measured(Meter(nvml, asked.card or card()), asked)
    print(*map(words, figures["rows"]), sep="\n")
    if asked.json:
        what = f"Energy of {run.config.model.name} on {run.config.data.name}, {run.precision}"
        changes = records.differing(run.config, default_config())
        records.add(asked.json, records.record(what, figures, config=changes))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"energy.py: {error}")
