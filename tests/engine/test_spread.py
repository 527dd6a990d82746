"""Streams in chunks, and runs on several devices: the same as one run."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.engine import chunks, early_exit, in_chunks, spread
from seenn_jax.errors import UserError
from seenn_jax.exits import above
from tests.engine.ways import CLASSES, random_inputs, step


@pytest.mark.parametrize(
    ("rows", "expected"), [(8, [7, 7, 7]), (7, [7, 7, 7]), (6, [6, 6, 6, 3]), (100, [21])]
)
def test_chunks_are_equal_and_as_large_as_may_be(monkeypatch, rows, expected):
    array = np.arange(21 * 6, dtype=np.uint8).reshape(21, 3, 2)
    monkeypatch.setattr(spread, "CHUNK_BYTES", 6 * rows)
    found = list(chunks(array))
    assert [len(chunk) for chunk in found] == expected
    np.testing.assert_array_equal(np.concatenate(found), array)


def test_stream_in_chunks():
    inputs = random_inputs(23)
    criterion = above(exits.confidence, 0.6)
    run = jax.jit(
        lambda x, count: early_exit(step, jnp.zeros(CLASSES), x, criterion, 5, 4, count=count)
    )
    whole = run(inputs, jnp.int32(23))
    parts = list(in_chunks(run, (inputs[i : i + 8] for i in range(0, 23, 8))))
    assert [len(chunk.timesteps) for chunk in parts] == [8, 8, 7]
    np.testing.assert_array_equal(np.concatenate([c.timesteps for c in parts]), whole.timesteps)
    np.testing.assert_allclose(np.concatenate([c.logits for c in parts]), whole.logits, rtol=1e-6)
    assert list(in_chunks(run, [])) == []
    with pytest.raises(UserError, match="a chunk has 3 samples and the first one 2"):
        list(in_chunks(run, [inputs[:2], inputs[:3]]))


DEVICES = """
import jax, numpy as np, jax.numpy as jnp
from seenn_jax import engine, exits
weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
def run(weights, x, count):
    def step(v, x):
        v = 0.5 * v + x @ weights
        return v * (v < 1), jnp.tanh(v)
    criterion = exits.above(exits.confidence, 0.5)
    return engine.early_exit(step, jnp.zeros(3), x, criterion, 4, 5, count=count)
assert jax.local_device_count() == 4
for samples in (0, 1, 3, 10, 33):
    x = np.random.default_rng(samples).normal(size=(samples, 4)).astype(np.float32)
    many = jax.jit(engine.over_devices(run))(weights, x)
    one = run(weights, x, None)
    assert np.array_equal(many.timesteps, one.timesteps)
    assert np.allclose(many.logits, one.logits, atol=1e-6)
    assert samples < 10 or len(set(one.timesteps.tolist())) > 1
print("same")
"""


def test_result_does_not_depend_on_the_number_of_devices():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DEVICES],
        env=os.environ | flags,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "same", done.stderr
