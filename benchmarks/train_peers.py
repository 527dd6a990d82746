"""A training step of ResNet-19 here, in SpikingJelly and in plain PyTorch, one after the other.

    pip install torch spikingjelly
    python benchmarks/train_peers.py --batch_size=512 --json=results/train_peers.json

In bfloat16, on noise, T timesteps; the cross-entropy of each tick, SGD with momentum. PyTorch has
channels last, autocast, cuDNN's own choice of convolutions (`cudnn.benchmark`), a fused optimiser,
and its stem computed once an image, as here; it runs layer by layer, all ticks of a layer at once.
SpikingJelly's LIF keeps its states in bfloat16 on a GPU: only then it has Triton's kernels under
autocast. "A loop" runs LIF tick by tick, as SEENN's code does. Only here a step also augments its
images and averages its parameters. Images/s is the median of --calls calls of --steps steps; this
project runs in a process of its own.
"""

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import records
from cpu_gradient import lif_of

from seenn_jax.errors import UserError, needed

STAGES = (3, 3, 2)
WAYS = ("SpikingJelly, compiled", "SpikingJelly, eager", "a loop, compiled", "a loop, eager")


def spikingjelly_of() -> Any:
    """SpikingJelly's LIF neurons of the same arithmetic, but for another surrogate."""
    module = "spikingjelly.activation_based.neuron"
    neuron = needed("comparing with SpikingJelly", module, "spikingjelly")
    return lambda: neuron.LIFNode(tau=2.0, decay_input=False, v_reset=0.0, step_mode="m")


def in_triton(network: Any, device: str) -> Any:
    """`network` of SpikingJelly with the fused kernels of its neurons, which ask for it so."""
    module = "spikingjelly.activation_based.precision"
    precision = needed("comparing with SpikingJelly", module, "spikingjelly")
    config = precision.PrecisionConfig(mode="bf16", neuron_storage="bf16")
    return precision.prepare_model_for_precision(network, device, config).model


def network_of(torch: ModuleType, neuron: Any, width: int, timesteps: int) -> Any:
    """ResNet-19: images [N, 3, H, W] -> logits [T, N, 10]."""
    nn = torch.nn

    class Layer(nn.Module):
        """Convolution and BatchNorm of all ticks as one batch."""

        def __init__(self, channels, features, size=3, stride=1):
            super().__init__()
            self.conv = nn.Conv2d(channels, features, size, stride, size // 2, bias=False)
            self.bn = nn.BatchNorm2d(features)

        def forward(self, x):
            y = self.bn(self.conv(x.flatten(0, -4)))
            return y.unflatten(0, x.shape[:-3])

    class Block(nn.Module):
        def __init__(self, channels, features, stride):
            super().__init__()
            self.one, self.two = Layer(channels, features, 3, stride), Layer(features, features)
            self.first, self.second, self.stride = neuron(), neuron(), stride
            same = channels == features and stride == 1
            self.shortcut = None if same else Layer(channels, features, 1)

        def forward(self, x):
            y = self.two(self.first(self.one(x)))
            if self.shortcut is not None:
                pooled = nn.functional.avg_pool2d(x.flatten(0, 1), self.stride)
                x = self.shortcut(pooled.unflatten(0, x.shape[:2]))
            return self.second(y + x)

    class ResNet19(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.neuron, blocks, channels = Layer(3, width), neuron(), [], width
            for stage, count in enumerate(STAGES):
                for index in range(count):
                    features = width * 2**stage
                    blocks.append(Block(channels, features, 2 if stage and not index else 1))
                    channels = features
            self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(channels, 10)

        def forward(self, images):
            current = self.stem(images)
            x = self.blocks(self.neuron(current.expand(timesteps, *current.shape)))
            return self.head(x.mean((-1, -2)).float())

    return ResNet19()


def stepper(torch: ModuleType, way: str, asked: argparse.Namespace, device: str) -> Any:
    """A function of nothing that takes a step of `way` and gives its loss."""
    neuron = spikingjelly_of() if way.startswith("SpikingJelly") else lambda: lif_of(torch)
    network = network_of(torch, neuron, asked.width, asked.timesteps)
    network = network.to(device=device, memory_format=torch.channels_last)
    if device == "cuda" and way.startswith("SpikingJelly"):
        network = in_triton(network, device)
    memories = [m for m in network.modules() if hasattr(m, "reset")]  # of SpikingJelly
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, fused=device == "cuda")
    compiled = torch.compile(network) if way.endswith("compiled") else network
    images = torch.randn(asked.batch_size, 3, 32, 32, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(10, (asked.batch_size,), device=device).repeat(asked.timesteps)

    def step():
        for memory in memories:
            memory.reset()
        with torch.autocast(device, torch.bfloat16):
            logits = compiled(images)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def of_peer(torch: ModuleType, way: str, asked: argparse.Namespace) -> dict:
    """A row of `way`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    if device == "cuda":  # what the way before has left is none of this one's memory
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step, seconds = stepper(torch, way, asked, device), []
    started = time.perf_counter()
    for _ in range(3):
        step().item()
    ready = time.perf_counter() - started
    for _ in range(asked.calls):
        started = time.perf_counter()
        for _ in range(asked.steps):
            loss = step()
        loss.item()  # waits for all of them
        seconds.append((time.perf_counter() - started) / asked.steps)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    rate = asked.batch_size / statistics.median(seconds)
    return {"way": way, "images_per_second": rate, "peak_gib": memory, "ready_seconds": ready}


def ours(asked: argparse.Namespace) -> dict:
    """A row of this project's step, by `train_step.py`."""
    script = Path(__file__).with_name("train_step.py")
    names = ("batch_size", "timesteps", "width", "steps", "calls")
    flags = [f"--{name}={getattr(asked, name)}" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "step.json")
        subprocess.run([sys.executable, script, *flags, f"--json={path}"], check=True)
        [record] = json.loads(path.read_text())["records"]
    figures = record["figures"]
    return {
        "way": "seenn_jax",
        "images_per_second": figures["images_per_second"],
        "peak_gib": figures.get("peak_gib"),
        "ready_seconds": figures["compile_seconds"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, number in {
        "batch_size": 256,
        "timesteps": 4,
        "width": 128,
        "steps": 20,
        "calls": 5,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--ways", default=";".join(WAYS), help="peers, with semicolons")
    parser.add_argument("--json", help="add the record to this file")
    asked = parser.parse_args()
    torch = needed("comparing with PyTorch", "torch")
    rows = [ours(asked)]
    for way in filter(None, asked.ways.split(";")):
        rows.append(of_peer(torch, way, asked))
    for row in rows:
        memory = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f} GiB, "
        print(
            f"{row['way']:24} {row['images_per_second']:9,.0f} images/s, {memory}"
            f"ready in {row['ready_seconds']:.0f} s, here "
            f"{rows[0]['images_per_second'] / row['images_per_second']:.2f} times as fast"
        )
    if asked.json:
        versions = {"torch": torch.__version__}
        if any(row["way"].startswith("SpikingJelly") for row in rows):
            versions["spikingjelly"] = importlib.metadata.version("spikingjelly")
        figures = {"batch_size": asked.batch_size, "timesteps": asked.timesteps, **versions}
        what = f"Training step of ResNet-19 beside other libraries, {asked.batch_size} images"
        records.add(asked.json, records.record(what, {**figures, "rows": rows}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"train_peers.py: {error}")
