"""Is an 8-bit convolution faster than a bfloat16 one? Times ResNet-19's three kinds of 3x3 layers.

    python benchmarks/conv_dtypes.py

Spikes are 0/1 in every dtype; each layer multiplies by a scale per output channel, adds a bias and
writes bfloat16, as inference with weights quantised per output channel would.
"""

import jax
import jax.numpy as jnp
import records
from absl import app, flags
from clock import microseconds
from jax import lax

from seenn_jax.models.layers import CHANNELS_LAST

BATCH_SIZE = flags.DEFINE_integer("batch_size", 512, "Images, one timestep each.")
REPEATS = flags.DEFINE_integer("repeats", 20, "Calls in a timed run; five runs, the median counts.")
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")

LAYERS = {"128 at 32x32": (128, 32), "256 at 16x16": (256, 16), "512 at 8x8": (512, 8)}
# The dtype of spikes and weights, and that of their products' sum.
DTYPES = {"bfloat16": "float32", "int8": "int32", "float8_e4m3fn": "float32"}


def measure(channels: int, side: int, dtype: str) -> dict:
    """Time one layer."""
    batch = BATCH_SIZE.value
    keys = jax.random.split(jax.random.key(0), 3)
    spikes = jax.random.bernoulli(keys[0], 0.15, (batch, side, side, channels)).astype(dtype)
    kernel = (jax.random.normal(keys[1], (3, 3, channels, channels)) * 20).astype(dtype)
    scale, bias = jax.random.normal(keys[2], (2, channels))

    def layer(spikes, kernel):
        sums = lax.conv_general_dilated(
            spikes,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=CHANNELS_LAST,
            preferred_element_type=DTYPES[dtype],
        )
        return (sums.astype(jnp.float32) * scale + bias).astype(jnp.bfloat16)

    compiled = jax.jit(layer).lower(spikes, kernel).compile()
    took = microseconds(REPEATS.value, compiled, spikes, kernel)
    flops = 2 * 9 * channels**2 * side**2 * batch
    return {
        "microseconds": took,
        "tflops": flops / took / 1e6,
        "custom_calls": ", ".join(
            sorted(
                {
                    line.split('custom_call_target="')[1].split('"')[0]
                    for line in compiled.as_text().splitlines()
                    if 'custom_call_target="' in line
                }
            )
        ),
    }


def main(_) -> None:
    """Print a line for each layer and dtype as it is measured."""
    rows = []
    for name, (channels, side) in LAYERS.items():
        for dtype in DTYPES:
            try:
                row = measure(channels, side, dtype)
            except jax.errors.JaxRuntimeError as error:  # a backend without this convolution
                row = {"error": str(error).splitlines()[0][:200]}
            rows.append({"layer": name, "dtype": dtype, **row})
            print(f"{name:14} {dtype:14} {row}", flush=True)
    if JSON.value:
        what = "ResNet-19's three kinds of 3x3 layers by dtype"
        record = records.record(what, {"batch_size": BATCH_SIZE.value, "rows": rows})
        records.add(JSON.value, record)


if __name__ == "__main__":
    app.run(main)
