"""Forward and backward pass of the digits' network on a CPU: this project and PyTorch, by turns.

    pip install torch
    python benchmarks/cpu_gradient.py --batch=64,256 --json=results/cpu_gradient.json

An untrained ResNet-8 of configs/digits.py in float32, T timesteps, BatchNorm with the statistics of
the batch, TET loss, the gradient of all parameters; without augmentation and optimiser. PyTorch
runs layer by layer, channels last, eager and by torch.compile. Images/s is the median of --repeats;
losses and gradients are compared.
"""

import functools
import os
import sys

import jax
import numpy as np
import records
from clock import by_turns
from cpu_peers import asked_of, merged
from flax import nnx
from ml_collections import ConfigDict

from configs.digits import get_config
from seenn_jax.data import normalize
from seenn_jax.errors import UserError, needed
from seenn_jax.run import build, folder
from seenn_jax.training.gradients import through_time
from seenn_jax.training.losses import make_loss
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import initial_state


def tensors(torch, model):
    """{name: tensors with a gradient} of each convolution (kernel OIHW, scale, bias) and head."""

    def tensor(array):
        return torch.from_numpy(np.array(array)).requires_grad_()

    def layer(conv_bn):
        kernel = conv_bn.conv.kernel[...].transpose(3, 2, 0, 1)
        return [tensor(x) for x in (kernel, conv_bn.bn.scale[...], conv_bn.bn.bias[...])]

    found = {"stem": layer(model.stem)}
    for index, block in enumerate(model.blocks):
        found |= {f"{index}.conv1": layer(block.conv1), f"{index}.conv2": layer(block.conv2)}
        if block.shortcut is not None:
            found[f"{index}.shortcut"] = layer(block.shortcut.projection)
    return {**found, "head": [tensor(model.head.kernel[...].T), tensor(model.head.bias[...])]}


def spike_of(torch):
    """The spike whose derivative is Dspike's, of temperature and region 3."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return (x >= 0).to(x.dtype)

        @staticmethod
        def backward(context, gradient):
            (x,) = context.saved_tensors
            slope = 1.5 / np.tanh(9.0) * (1 - torch.tanh(3 * x) ** 2)
            return gradient * slope * (x.abs() <= 3)

    return Spike.apply


def lif_of(torch, tau=0.5, threshold=1.0):
    """LIF neurons tick by tick, `currents [T, ...] -> spikes`."""
    spike = spike_of(torch)

    def lif(currents):
        v, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            v = tau * v + current
            fired = spike(v - threshold)
            v = v * (1 - fired)
            spikes.append(fired)
        return torch.stack(spikes)

    return lif


def torch_loss(torch, config, params):
    """`(images [N, C, H, W], labels [N]) -> loss` of all timesteps."""
    functional, timesteps = torch.nn.functional, config.timesteps
    lif = lif_of(torch, config.model.tau, config.model.threshold)

    def layer(x, name, stride=1):
        kernel, scale, bias = params[name]
        y = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
        return functional.batch_norm(y, None, None, scale, bias, training=True)

    def loss(x, labels):
        current = layer(x, "stem")
        x = lif(current.unsqueeze(0).expand(timesteps, *current.shape))
        for index, stride in enumerate((1, 2, 2)):
            conv1 = functools.partial(layer, name=f"{index}.conv1", stride=stride)
            hidden = lif(merged(conv1, x))
            y = merged(functools.partial(layer, name=f"{index}.conv2"), hidden)
            if f"{index}.shortcut" in params:
                pooled = merged(lambda x: functional.avg_pool2d(x, stride), x)  # noqa: B023
                x = merged(functools.partial(layer, name=f"{index}.shortcut"), pooled)
            x = lif(y + x)
        logits = functional.linear(x.mean((-1, -2)), *params["head"])
        taught = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(timesteps))
        return (1 - config.tet_weight) * taught + config.tet_weight * ((logits - 1) ** 2).mean()

    return loss


def ways_of(torch, config: ConfigDict, batch):
    """{who: function of nothing that gives (loss, gradient of the first kernel HWIO)}."""
    dataset = build.dataset(config)
    facts = folder.DataFacts.of(dataset)
    graph, state = initial_state(build.network(config, facts), make_optimizer(config, 1), 0.0)
    index = np.arange(batch) % len(dataset.train.images)
    inputs = normalize(dataset.train.images[index], *facts.normalization, dtype="float32")
    labels = np.asarray(dataset.train.labels[index], np.int32)
    targets = jax.nn.one_hot(labels, facts.num_classes)
    loss = make_loss(config)
    gradient = jax.jit(through_time(graph, lambda _: loss, config.timesteps, False))

    def ours():
        (value, _), grads = gradient(state.params, state.stats, inputs, targets, labels)
        jax.block_until_ready(grads)
        return float(value), np.asarray(grads["stem"]["conv"]["kernel"][...])

    params = tensors(torch, nnx.merge(graph, state.params, state.stats))
    leaves = [x for layer in params.values() for x in layer]
    images = torch.from_numpy(np.array(inputs)).permute(0, 3, 1, 2)  # channels last, as it lies
    classes = torch.from_numpy(labels.astype(np.int64))

    def theirs(loss):
        value = loss(images, classes)
        first, *_ = torch.autograd.grad(value, leaves)
        return value.item(), first.numpy().transpose(2, 3, 1, 0)

    eager = torch_loss(torch, config, params)
    compiled = torch.compile(eager)
    return {
        "seenn_jax": ours,
        "PyTorch, eager": lambda: theirs(eager),
        "PyTorch, compiled": lambda: theirs(compiled),
    }


def measured(torch, config, batch, repeats):
    """A row for each way at a batch."""
    ways = ways_of(torch, config, batch)
    wanted, expected = next(iter(ways.values()))()
    far = {}
    for name, way in ways.items():
        value, first = way()
        off = np.abs(first - expected).max() / np.abs(expected).max()
        far[name] = (abs(value - wanted), float(off))
    rows = []
    for name, taken in by_turns(repeats, ways).items():
        rate, (loss, gradient) = batch / taken, far[name]
        rows.append({"way": name, "batch": batch, "images_per_second": rate})
        rows[-1] |= {"loss_differs_by": loss, "gradient_differs_by": gradient}
        print(
            f"{name:18} batch {batch:4} {rate:8,.0f} images/s  loss within {loss:.1e}, first "
            f"kernel's gradient within {gradient:.1e} of its largest",
            flush=True,
        )
    return rows


def main() -> None:
    """Measure and print."""
    asked = asked_of(__doc__, "64,256")
    torch, config = needed("comparing with PyTorch", "torch"), get_config()
    rows = [row for batch in asked.batch for row in measured(torch, config, batch, asked.repeats)]
    if asked.json:
        figures = {"timesteps": config.timesteps, "cores": os.cpu_count()}
        figures |= {"torch": torch.__version__, "rows": rows}
        what = "Forward and backward pass of the digits' ResNet-8 on a CPU, beside PyTorch"
        records.add(asked.json, records.record(what, figures, seed=config.seed))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"cpu_gradient.py: {error}")
