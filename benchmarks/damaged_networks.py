"""What becomes of damage to networks of others: NIR graphs, and checkpoints in four formats.

    python benchmarks/damaged_networks.py --tries=2000

Writes a small network in each format, damages a copy at a time (a flipped bit, a cut end, a stretch
of zeros), and reads it. An outcome is a network, one sentence, or another error than a UserError;
of the last there must be none, and the exit status is 1 then. Each format is tried in a process of
its own, and one that does not answer, as it was killed or goes round for ever, ends all of it.
"""

import collections
import multiprocessing
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import app, flags
from damages import DAMAGES
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.interop import nir
from seenn_jax.interop.files import read_state_dict
from seenn_jax.models.neurons import LIF
from seenn_jax.models.vgg import SpikingVGG

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the tests are
from tests.interop.torch_made import saved

TRIES = flags.DEFINE_integer("tries", 2000, "Damaged files of each format.")
SEED = flags.DEFINE_integer("seed", 0, "Of the places that are damaged.")

LONGEST = 1800  # seconds that a format may take
READ, SENTENCE, ERROR = "read", "one sentence", "other error"


def state() -> dict[str, np.ndarray]:
    """A state dict of a few layers, in three dtypes."""
    rng = np.random.default_rng(0)
    return {
        f"layer{n}.weight": rng.normal(size=(8, 4, 3, 3)).astype(dtype)
        for n, dtype in enumerate((np.float32, np.float16, jnp.bfloat16))
    }


def write_npz(path: Path) -> None:
    """Without bfloat16, which NumPy has not."""
    with path.open("wb") as file:
        np.savez_compressed(file, **{k: v for k, v in state().items() if v.dtype.kind == "f"})


def write_nir(path: Path) -> None:
    """Two convolutions, with a pool between them."""

    class Chain(SpikingVGG):
        plan = (1, "P", 2)

    arguments = {"neuron": LIF(), "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    nir.write(path, Chain(4, image_shape=(8, 8, 1), num_classes=10, **arguments), (8, 8, 1))


FORMATS: dict[str, tuple[Callable, Callable]] = {
    "torch.save": (lambda path: path.write_bytes(saved(state())), read_state_dict),
    "torch.save, older": (
        lambda path: path.write_bytes(saved(state(), older=True)),
        read_state_dict,
    ),
    ".safetensors": (
        lambda path: path.write_bytes(safetensors.numpy.save(state())),
        read_state_dict,
    ),
    ".npz": (write_npz, read_state_dict),
    "NIR": (write_nir, nir.read),
}
KINDS = ("flip", "cut", "zeros")


def outcome(read: Callable, path: Path) -> str:
    """How reading a file ends."""
    try:
        read(path)
    except UserError as error:
        return SENTENCE if "\n" not in str(error) else ERROR
    except BaseException as error:
        print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return ERROR
    return READ


def tried(name: str, tries: int, seed: int) -> collections.Counter:
    """The outcomes of one format."""
    write, read = FORMATS[name]
    counts: collections.Counter = collections.Counter()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network")
        write(path)
        whole = path.read_bytes()
        for number in range(tries):
            kind = KINDS[number % len(KINDS)]
            path.write_bytes(DAMAGES[kind](whole, rng))
            found = outcome(read, path)
            counts[kind, found] += 1
            if found == ERROR:
                kept = Path(tempfile.gettempdir(), f"damaged-{name}-{number}")
                kept.write_bytes(path.read_bytes())
                print(f"{kind} of {name}, kept as {kept}", file=sys.stderr)
    return counts


def main(_: list[str]) -> None:
    """The program."""
    print(f"| format | damage | {READ} | {SENTENCE} | {ERROR} |\n|---|---|---:|---:|---:|")
    bad = 0
    for name in FORMATS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            counts = pool.apply_async(tried, (name, TRIES.value, SEED.value)).get(LONGEST)
        for kind in KINDS:
            each = [counts[kind, column] for column in (READ, SENTENCE, ERROR)]
            print(f"| {name} | {kind} | {' | '.join(map(str, each))} |", flush=True)
            bad += each[-1]
    sys.exit(bad > 0)


if __name__ == "__main__":
    app.run(main)
