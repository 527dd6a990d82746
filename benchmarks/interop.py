"""Measures how far networks that go in and out are from themselves, in each library.

    python benchmarks/interop.py --json=results/interop.json

Needs what `pip install snntorch==1.0.0 torch` and the extras nir, onnx and stablehlo bring, and the
tensors of SEENN's own classes where the tests look for them. Networks and libraries are run as in
the tests, which have the bounds; here is what was found.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import records

import seenn_jax
from seenn_jax.errors import UserError
from seenn_jax.exits import Given

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the tests are
PACKAGES = ("nir", "onnx", "onnxruntime", "safetensors", "snntorch", "torch", "flatbuffers")
WEIGHTS = "digits-resnet8"
OF_AUTHORS = (
    "ResNet-18, -20, -20 of SEENN, -34, VGG-16 to convert; TET's ResNet-19, both VGGSNN; "
    "SEW-ResNet-18, -50"
)


class Found(NamedTuple):
    """What was measured.

    Attributes:
      networks: which, in words.
      library: the other side, with its version.
      difference: the largest, of all networks, samples and ticks.
      of: what it is of.
    """

    networks: str
    library: str
    difference: float
    of: str


def version(*packages: str) -> str:
    """Names of packages with their versions."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def apart(pairs: list[tuple[Any, Any]]) -> float:
    """The largest difference of pairs of arrays."""
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def official_tensors() -> Found:
    """Of SEENN's own classes."""
    from tests.interop.test_golden import logits_of
    from tests.interop.test_official import GOLDEN

    networks = {"resnet19": "eval_logits", "vgg16": "eval_logits", "qcfs_resnet20": "snn_logits"}
    pairs = []
    for name, what in networks.items():
        with np.load(GOLDEN / f"reference_{name}_w16.npz") as arrays:
            golden = dict(arrays)
        state = {k.removeprefix("param/"): v for k, v in golden.items() if k.startswith("param/")}
        inputs, theirs = golden["input"].transpose(0, 2, 3, 1), golden[what]
        pairs.append((logits_of(state, inputs, theirs.shape[1]), theirs))
    names = "ResNet-19, VGG-16; ResNet-20 to convert, at 16 ticks"
    return Found(names, "SEENN's own classes", apart(pairs), "logits of a tick, float64")


def authors_layers() -> Found:
    """Of the authors' networks, written again layer by layer; see tests/interop/make_golden.py."""
    from tests.interop.make_golden import NETWORKS
    from tests.interop.test_golden import ours_and_theirs

    pairs = [ours_and_theirs(name) for name in NETWORKS]
    library = "the authors' layers in torch 2.13.0"  # with which the files were made
    return Found(OF_AUTHORS, library, apart(pairs), "logits of a tick, float64")


def state_dicts() -> Found:
    """Of every source, written and read again."""
    from tests.interop.test_state_dict import EACH, round_trip

    trips = [round_trip(*each) for each in sorted(EACH)]
    differ = sum(ours.tobytes() != theirs.tobytes() for trip in trips for _, ours, theirs in trip)
    networks = f"each network of each source, {len(EACH)} in all"
    return Found(networks, version("safetensors"), differ, "arrays with other bits")


def pytorch() -> Found:
    """The authors' layers, with state dicts that were written here."""
    import torch

    from tests.interop import make_golden
    from tests.interop.test_golden import logits_of
    from tests.interop.test_state_dict import rewritten

    make_golden.torch, make_golden.functional = torch, torch.nn.functional
    pairs = []
    for name, (forward, neuron, shape) in make_golden.NETWORKS.items():
        state = rewritten(name)
        theirs = make_golden.Network(neuron)
        theirs.state = {k: torch.tensor(v).double() for k, v in state.items()}
        inputs = make_golden.images(shape)
        with torch.no_grad():
            run = [forward(theirs, torch.from_numpy(inputs).double()) for _ in range(4)]
        ours = logits_of(state, inputs.transpose(0, 2, 3, 1), 4)
        pairs.append((ours, np.stack([np.asarray(each) for each in run], 1)))
    return Found(OF_AUTHORS, version("torch"), apart(pairs), "logits of a tick, float64")


def nir_round_trips() -> Found:
    """Of this package, written and read."""
    from tests.interop.nir.test_read import ROUND_TRIPS, round_trip

    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ROUND_TRIPS:
            _, _, ((_, ours), (_, theirs)) = round_trip(name, Path(folder))
            both = zip(ours.values(), theirs.values(), strict=True)
            differ += sum(int(((a != 0) != (b != 0)).sum()) for a, b in both)
    return Found(f"{len(ROUND_TRIPS)} kinds", version("nir"), differ, "spikes, layer by layer")


def snntorch() -> Found:
    """Graphs in snnTorch."""
    from tests.interop.nir.test_snntorch import NAMES, ours_and_theirs

    pairs = [ours_and_theirs(name, count) for name in NAMES for count in (1, 3)]
    names = "ResNet-8, -34, VGG-16, VGGSNN, in batches of 1 and 3"
    return Found(names, version("snntorch", "nir", "nirtorch"), apart(pairs), "logits of a tick")


def onnx_exact() -> Found:
    """Ticks in ONNX Runtime, of networks whose sums are exact."""
    from tests.interop.test_onnx import EXACT, of_network

    pairs = [of_network(name) for name in EXACT]
    names = ", ".join(EXACT) + " of exact sums"
    return Found(names, version("onnx", "onnxruntime"), apart(pairs), "logits of a tick")


def onnx_trained() -> Found:
    """Ticks of trained weights in ONNX Runtime."""
    from tests.interop.test_onnx import of_run

    kinds = ((WEIGHTS, "float32"), (WEIGHTS, "int8"), ("digits-resnet8-qcfs", "float32"))
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            of_run(seenn_jax.load(name, precision=precision), Path(folder, f"{name}-{precision}"))
            for name, precision in kinds
        ]
    names = "digits-resnet8 in float32 and int8, digits-resnet8-qcfs"
    return Found(names, version("onnx", "onnxruntime"), apart(pairs), "logits of a tick")


def _stablehlo() -> tuple[Any, Any, Any]:
    """(what a process with jax alone finds, our predictions, our logits of two images)."""
    from tests.interop.test_stablehlo import elsewhere

    run = seenn_jax.load(WEIGHTS, timesteps=3)
    images = run.dataset.test.images[:100]
    with tempfile.TemporaryDirectory() as folder:
        found = dict(elsewhere(run, images, Path(folder), dict(os.environ)))
    ours = run.predict(images[:-1], exit="confidence", choice=Given(0.2))
    return found, ours, run.logits(images[:2])


def stablehlo_ticks() -> Found:
    """A tick in a process without the package."""
    found, _, logits = _stablehlo()
    return Found(WEIGHTS, version("jax"), apart([(found["ticks"], logits)]), "logits of a tick")


def stablehlo_slots() -> Found:
    """The loop of early exit in a process without the package."""
    found, ours, _ = _stablehlo()
    differ = int(np.sum(found["timesteps"][:-1] != ours.timesteps))
    differ += int(np.sum(found["logits"][:-1].argmax(-1) != ours.classes))
    return Found(f"{WEIGHTS}, 99 images", version("jax"), differ, "exits and answers")


ROWS: dict[str, tuple[Callable[[], Found], str]] = {
    "checkpoints in": (official_tensors, "test_official.py"),
    "checkpoints in, further": (authors_layers, "test_golden.py"),
    "safetensors out and in": (state_dicts, "test_state_dict.py"),
    "safetensors out": (pytorch, "test_state_dict.py"),
    "NIR out and in": (nir_round_trips, "nir/test_read.py"),
    "NIR out": (snntorch, "nir/test_snntorch.py"),
    "ONNX out": (onnx_trained, "test_onnx.py"),
    "ONNX out, further": (onnx_exact, "test_onnx.py"),
    "StableHLO out, a tick": (stablehlo_ticks, "test_stablehlo.py"),
    "StableHLO out, slots": (stablehlo_slots, "test_stablehlo.py"),
}


def measured() -> list[dict]:
    """A row for each of `ROWS`.

    Raises:
      UserError: a library is not installed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} can't be imported, and networks are run in them: "
            f"pip install {' '.join(missing)}"
        )
    rows = []
    for what, (measure, test) in ROWS.items():
        found = measure()
        shown = f"tests/interop/{test}"
        rows.append({"what": what.partition(", further")[0], **found._asdict(), "shown_by": shown})
        of, other_side = found.of, rows[-1]["library"]
        print(f"{what}: {found.difference:.1e} {of} ({other_side})", flush=True)
    return rows


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="add the record to this file")
    path, rows = parser.parse_args().json, measured()
    if path:
        records.add(path, records.record("Networks in and out", {"rows": rows}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"interop.py: {error}")
