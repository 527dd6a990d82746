"""The network of digits on a CPU: this project, PyTorch and ONNX Runtime, by turns.

    pip install torch onnx onnxruntime
    python benchmarks/cpu_peers.py --batch=64,256,512 --json=results/cpu_peers.json

The same trained ResNet-8 in float32. All T timesteps: here all at once; in PyTorch too (layer by
layer, channels last, eager and by torch.compile); in ONNX Runtime the exported tick, T times. Then,
here, with early exit in slots. Images/s is the median of --repeats; logits are compared.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import records
from clock import by_turns

from seenn_jax.devices import for_inference
from seenn_jax.errors import UserError, needed
from seenn_jax.interop.onnx import write_tick
from seenn_jax.run.inference import load

WEIGHTS = "digits-resnet8"
SLOTS, QUEUE = "seenn_jax, slots", 16  # which run so many batches, one queue


def torch_params(torch, model):
    """(kernel OIHW, scale, shift) of each convolution, and (kernel, bias) of the last layer."""

    def tensor(array):
        return torch.from_numpy(np.array(array))

    def conv(layer):
        kernel = tensor(layer.conv.kernel[...].transpose(3, 2, 0, 1))
        affine = (tensor(part)[:, None, None] for part in layer.running())
        return (kernel.contiguous(memory_format=torch.channels_last), *affine)

    found = {"stem": conv(model.stem)}
    for index, block in enumerate(model.blocks):
        layers = {"conv1": block.conv1, "conv2": block.conv2}
        if block.shortcut is not None:
            layers["shortcut"] = block.shortcut.projection
        found |= {f"blocks.{index}.{name}": conv(layer) for name, layer in layers.items()}
    found["head"] = tensor(model.head.kernel[...].T), tensor(model.head.bias[...])
    return found


def merged(function, x):
    """`function` of all ticks [T, N, ...] as one batch."""
    y = function(x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


def of_torch(torch, run):
    """The network in PyTorch, `images uint8 [N, H, W, C] -> logits [T, N, K]`, for inference."""
    functional, params = torch.nn.functional, torch_params(torch, run.model)
    timesteps = run.timesteps
    mean, std = (float(x) for [x] in run.facts.normalization)

    def lif(currents):
        v, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            v = 0.5 * v + current
            fired = (v >= 1).to(v.dtype)
            v = v * (1 - fired)
            spikes.append(fired)
        return torch.stack(spikes)

    def layer(x, at, stride=1):
        kernel, scale, shift = params[at]
        y = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
        return y * scale + shift

    def network(images):
        x = (images.permute(0, 3, 1, 2).to(torch.float32) / 255 - mean) / std
        current = layer(x.contiguous(memory_format=torch.channels_last), "stem")
        x = lif(current.unsqueeze(0).expand(timesteps, *current.shape))
        for index, stride in enumerate((1, 2, 2)):
            at = f"blocks.{index}"
            hidden = lif(merged(lambda y: layer(y, f"{at}.conv1", stride), x))  # noqa: B023
            y = merged(lambda y: layer(y, f"{at}.conv2"), hidden)  # noqa: B023
            if f"{at}.shortcut" in params:
                pooled = lambda y: layer(functional.avg_pool2d(y, stride), f"{at}.shortcut")  # noqa: B023, E731
                x = merged(pooled, x)
            x = lif(y + x)
        return functional.linear(x.mean((-1, -2)), *params["head"])

    return network


def of_onnx(runtime, run, batch, folder):
    """The exported tick in ONNX Runtime, T times: `images -> logits [T, N, K]`."""
    path = Path(folder, f"{batch}.onnx")
    write_tick(path, run, batch)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rest = {x.name: np.zeros(x.shape, np.float32) for x in session.get_inputs()[2:]}
    ticks = [np.full(batch, t == 0) for t in range(run.timesteps)]

    def network(images):
        membranes, found = list(rest.values()), []
        for fresh in ticks:
            inputs = {"images": images, "fresh": fresh, **dict(zip(rest, membranes, strict=True))}
            logits, *membranes = session.run(None, inputs)
            found.append(logits)
        return np.stack(found)

    return network


def ways_of(torch, runtime, run, images, folder):
    """{what: function of nothing} for a batch; all but slots give the logits of all ticks."""
    batch, many = len(images), jax.device_put(images)
    network = run.network
    all_at_once = for_inference(lambda params, x: network.logits(params, run.transform(x)))
    tensor, eager = torch.from_numpy(images), of_torch(torch, run)
    compiled, onnx = torch.compile(eager), of_onnx(runtime, run, batch, folder)
    run.batch = batch
    rule, chosen, temperatures = run.exit_of(None, None)
    exiting = run.exiting(rule, chosen.value, temperatures, "slots")
    queue = jax.device_put(np.concatenate([images] * QUEUE))

    def ours():
        return np.asarray(all_at_once(network.params, many)).swapaxes(0, 1)

    def slots():
        return jax.block_until_ready(exiting(queue, np.int32(len(queue))))

    def inference(network):
        with torch.inference_mode():
            return network(tensor).numpy()

    return {
        "seenn_jax, all T at once": ours,
        "PyTorch, eager": lambda: inference(eager),
        "PyTorch, compiled": lambda: inference(compiled),
        "ONNX Runtime, tick by tick": lambda: onnx(images),
        SLOTS: slots,
    }


def measured(torch, runtime, run, batch, repeats):
    """A row for each way at a batch."""
    test = run.dataset.test.images
    images = test[np.arange(batch) % len(test)]
    differences = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = ways_of(torch, runtime, run, images, folder)
        wanted = next(iter(ways.values()))()
        for name, way in ways.items():
            found = way()
            if isinstance(found, np.ndarray):
                differences[name] = float(np.abs(found - wanted).max())
        seconds = by_turns(repeats, ways)
    rows = []
    for name, taken in seconds.items():
        rate = batch * (QUEUE if name == SLOTS else 1) / taken
        far = differences.get(name)
        rows.append({"way": name, "batch": batch, "images_per_second": rate, "differs_by": far})
        print(f"{name:28} batch {batch:4} {rate:9,.0f} images/s  logits within {far}", flush=True)
    return rows


def asked_of(about, batch):
    """What the command line says: batch, a list; repeats; json."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--batch", default=batch, help="images at a time, with commas")
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each")
    parser.add_argument("--json", help="add the record to this file")
    asked = parser.parse_args()
    asked.batch = [int(size) for size in asked.batch.split(",")]
    return asked


def main() -> None:
    """Measure and print."""
    asked = asked_of(__doc__, "64,256,512")
    run = load(WEIGHTS, precision="float32")
    torch = needed("comparing with PyTorch", "torch")
    runtime = needed("comparing with ONNX Runtime", "onnxruntime")
    peers = (torch, runtime)
    rows = [row for batch in asked.batch for row in measured(*peers, run, batch, asked.repeats)]
    if asked.json:
        libraries = {"torch": torch.__version__, "onnxruntime": runtime.__version__}
        figures = {"timesteps": run.timesteps, "cores": os.cpu_count(), **libraries, "rows": rows}
        what = "All timesteps of the digits' ResNet-8 on a CPU, beside other libraries"
        records.add(asked.json, records.record(what, figures))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"cpu_peers.py: {error}")
