"""Makes golden/*.npz, for `test_golden.py`: python tests/interop/make_golden.py (needs torch).

Names of networks after it make these alone.

Each network is written here in PyTorch, in float64, layer by layer with the names that the authors'
classes give their parameters (SEENN_conversion_QCFS/Models/ResNet.py and modules.py of
Intelligent-Computing-Lab-Yale/SEENN; Models/ResNet.py, VGG.py and layer.py of putshua/ANN_SNN_QCFS;
models/resnet_models.py, VGG_models.py and layers.py of
brain-intelligence-lab/temporal_efficient_training; activation_based/model/sew_resnet.py of
fangwei123456/spikingjelly), and runs tick by tick with their neurons. Its
parameters are drawn by their names and shapes (`drawn`), so that a file holds these and the logits
of every tick, and no parameters.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
SAMPLES, TICKS, CLASSES = 2, 4, 5


def drawn(name, shape):
    """The array of a name: float32, so that it is the same in any file."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.rpartition(".")[2]
    if kind in ("up", "thresh"):
        array = rng.uniform(0.7, 1.5, shape)
    elif kind == "running_var" or (kind == "weight" and len(shape) == 1):
        array = rng.uniform(0.3, 1.2, shape)
    elif kind == "weight":
        array = rng.normal(0, (2.5 / np.prod(shape[1:])) ** 0.5, shape)
    else:
        array = rng.normal(0.1, 0.2, shape)
    return np.float32(array)


def images(shape):
    """The inputs [N, C, H, W]."""
    return np.random.default_rng(1).normal(size=(SAMPLES, *shape)).astype(np.float32)


class Network:
    """A forward pass that makes the parameters that it needs, and keeps its membranes."""

    def __init__(self, neuron):
        self.neuron, self.state, self.membranes = neuron, {}, {}

    def get(self, name, *shape):
        if name not in self.state:
            self.state[name] = torch.from_numpy(drawn(name, shape)).double()
        return self.state[name]

    def conv(self, x, name, out, size=3, stride=1, bias=False):
        weight = self.get(f"{name}.weight", out, x.shape[1], size, size)
        bias = self.get(f"{name}.bias", out) if bias else None
        return functional.conv2d(x, weight, bias, stride, size // 2)

    def norm(self, x, name):
        kinds = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(self.get(f"{name}.{k}", x.shape[1]) for k in kinds))

    def linear(self, x, name, out):
        weight = self.get(f"{name}.weight", out, x.shape[1])
        return functional.linear(x, weight, self.get(f"{name}.bias", out))

    def fire(self, x, place):
        return self.neuron(self, x, place)


def lif(network, x, place):
    """TET's LIFSpike: decay 0.5, threshold 1, fires above it, reset to zero."""
    v = network.membranes.get(place, 0) * 0.5 + x
    spikes = (v - 1 > 0).double()
    network.membranes[place] = (1 - spikes) * v
    return spikes


def spikingjelly_if(network, x, place):
    """SpikingJelly's IFNode: threshold 1, fires at it, reset to zero."""
    v = network.membranes.get(place, 0) + x
    spikes = (v - 1 >= 0).double()
    network.membranes[place] = (1 - spikes) * v
    return spikes


def seenn_if(network, x, place):
    """SEENN's ScaledNeuron: in units of the threshold, from 0.5, fires above 1."""
    scale = network.get(f"{place}.up", 1)
    v = network.membranes.get(place, 0.5) + x / scale
    spikes = (v - 1 > 0).double()
    network.membranes[place] = v - spikes
    return spikes * scale


def qcfs_if(network, x, place):
    """QCFS's IF: from half the threshold, fires at it."""
    threshold = network.get(f"{place}.thresh", 1)
    v = network.membranes.get(place, 0.5 * threshold) + x
    spikes = (v - threshold >= 0).double() * threshold
    network.membranes[place] = v - spikes
    return spikes


def conversion_resnet(blocks, width, last):
    """`last` is what the activation of a block's end is called."""

    def forward(network, x):
        x = network.fire(network.norm(network.conv(x, "conv1.0", width), "conv1.1"), "conv1.2")
        for stage, count in enumerate(blocks):
            out = width * 2**stage
            for index in range(count):
                stride = 2 if stage and not index else 1
                name = f"conv{stage + 2}_x.{index}"
                chain, residual = f"{name}.residual_function", x
                if stride > 1 or x.shape[1] != out:
                    residual = network.conv(x, f"{name}.shortcut.0", out, 1, stride)
                    residual = network.norm(residual, f"{name}.shortcut.1")
                y = network.norm(network.conv(x, f"{chain}.0", out, 3, stride), f"{chain}.1")
                y = network.fire(y, f"{chain}.2")
                y = network.norm(network.conv(y, f"{chain}.3", out), f"{chain}.4")
                x = network.fire(y + residual, f"{name}.{last}")
        return network.linear(x.mean((2, 3)), "fc", CLASSES)

    return forward


def conversion_vgg(width):
    def forward(network, x):
        for stage, channels in enumerate(([1, 1], [2, 2], [4] * 3, [8] * 3, [8] * 3), 1):
            for index, multiple in enumerate(channels):
                name = f"layer{stage}."
                x = network.conv(x, f"{name}{4 * index}", width * multiple, bias=True)
                x = network.norm(x, f"{name}{4 * index + 1}")
                x = network.fire(x, f"{name}{4 * index + 2}")
            x = functional.avg_pool2d(x, 2)
        x = x.flatten(1)
        x = network.fire(network.linear(x, "classifier.1", 64 * width), "classifier.2")
        x = network.fire(network.linear(x, "classifier.4", 64 * width), "classifier.5")
        return network.linear(x, "classifier.7", CLASSES)

    return forward


def tet_resnet(width):
    def forward(network, x):
        x = network.fire(network.norm(network.conv(x, "conv1", width), "bn1.bn"), "spike")
        for stage, count in enumerate((3, 3, 2)):
            out = width * 2 ** (stage + 1)
            for index in range(count):
                stride, name, residual = (2 if stage and not index else 1), f"layer{stage + 1}.", x
                name += str(index)
                if index == 0:
                    residual = network.conv(x, f"{name}.downsample.layer.module", out, 1, stride)
                    residual = network.norm(residual, f"{name}.downsample.bn.bn")
                y = network.norm(network.conv(x, f"{name}.conv1", out, 3, stride), f"{name}.bn1.bn")
                y = network.fire(y, f"{name}.1")
                y = network.norm(network.conv(y, f"{name}.conv2", out), f"{name}.bn2.bn")
                x = network.fire(y + residual, f"{name}.2")
        x = network.fire(network.linear(x.mean((2, 3)), "fc1", 4 * width), "fc1")
        return network.linear(x, "fc2", CLASSES)

    return forward


def sew_resnet(blocks, width, bottleneck=False):
    """`cnf="ADD"`."""

    def block(network, x, name, channels, stride):
        out = 4 * channels if bottleneck else channels
        plan = [(3, stride, channels), (3, 1, out)]
        if bottleneck:
            plan = [(1, 1, channels), (3, stride, channels), (1, 1, out)]
        y, identity = x, x
        for index, (size, step, after) in enumerate(plan, 1):
            y = network.conv(y, f"{name}.conv{index}", after, size, step)
            y = network.fire(network.norm(y, f"{name}.bn{index}"), f"{name}.sn{index}")
        if stride > 1 or x.shape[1] != out:
            identity = network.conv(x, f"{name}.downsample.0", out, 1, stride)
            identity = network.norm(identity, f"{name}.downsample.1")
            identity = network.fire(identity, f"{name}.downsample_sn")
        return identity + y

    def forward(network, x):
        x = network.norm(network.conv(x, "conv1", width, 7, 2), "bn1")
        x = functional.max_pool2d(network.fire(x, "sn1"), 3, 2, 1)
        for stage, count in enumerate(blocks):
            for index in range(count):
                stride = 2 if stage and not index else 1
                x = block(network, x, f"layer{stage + 1}.{index}", width * 2**stage, stride)
        return network.linear(x.mean((2, 3)), "fc", CLASSES)

    return forward


def vggsnn(width, plan):
    """The plan has channels, (channels, stride), or "P"."""

    def forward(network, x):
        for position, entry in enumerate(plan):
            if entry == "P":
                x = functional.avg_pool2d(x, 2)
                continue
            multiple, stride = entry if isinstance(entry, tuple) else (entry, 1)
            name = f"features.{position}.fwd.module"
            x = network.conv(x, f"{name}.0", width * multiple, 3, stride, bias=True)
            x = network.fire(network.norm(x, f"{name}.1"), name)
        return network.linear(x.flatten(1), "classifier.module", CLASSES)

    return forward


POOLED = (1, 2, "P", 4, 4, "P", 8, 8, "P", 8, 8, "P")
STRIDED = (1, (2, 2), 4, (4, 2), 8, (8, 2), 8, (8, 2))
# By the row of MODELS: forward pass, neuron, shape of an image.
NETWORKS = {
    "resnet18": (conversion_resnet((2, 2, 2, 2), 4, "act"), qcfs_if, (3, 8, 8)),
    "resnet20": (conversion_resnet((3, 3, 3), 4, "act"), qcfs_if, (3, 8, 8)),
    "resnet20_seenn": (conversion_resnet((3, 3, 2), 4, "relu"), seenn_if, (3, 8, 8)),
    "resnet34_small": (conversion_resnet((3, 4, 6, 3), 4, "relu"), seenn_if, (3, 8, 8)),
    "vgg16_qcfs": (conversion_vgg(4), qcfs_if, (3, 32, 32)),
    "resnet19_tet": (tet_resnet(4), lif, (3, 8, 8)),
    "sew_resnet18": (sew_resnet((2, 2, 2, 2), 4), spikingjelly_if, (3, 32, 32)),
    "sew_resnet50": (sew_resnet((3, 4, 6, 3), 4, True), spikingjelly_if, (3, 32, 32)),
    "vggsnn": (vggsnn(4, STRIDED), lif, (2, 32, 16)),
    "vggsnn_pool": (vggsnn(4, POOLED), lif, (2, 32, 16)),
}


def main(networks=NETWORKS, folder=GOLDEN):
    folder.mkdir(exist_ok=True)
    for name in sys.argv[1:] or networks:
        forward, neuron, shape = networks[name]
        network = Network(neuron)
        inputs = torch.from_numpy(images(shape)).double()
        logits = np.stack([forward(network, inputs).numpy() for _ in range(TICKS)], 1)
        shapes = {key: list(array.shape) for key, array in network.state.items()}
        about = {"shapes": json.dumps(shapes), "image": shape}
        np.savez_compressed(folder / f"{name}.npz", logits=logits, **about)
        spread = np.abs(np.diff(logits, axis=1)).max()
        print(f"{name}: {len(shapes)} tensors, ticks differ by up to {spread:.2f}", file=sys.stderr)


if __name__ == "__main__":
    import torch
    from torch.nn import functional

    main()
