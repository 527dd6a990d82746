"""A run that was written as StableHLO runs in a process that has jax and nothing of ours."""

import subprocess
import sys

import numpy as np
import pytest

from seenn_jax.errors import UserError
from seenn_jax.exits import Given
from seenn_jax.interop.stablehlo import write_slots, write_tick
from seenn_jax.run.inference import load

ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np
import jax.export
images, tick_file, slots_file, answers = sys.argv[1:]
images = np.load(images)

program = jax.export.deserialize(bytearray(Path(slots_file).read_bytes()))
logits, timesteps = program.call(images, np.int32(len(images) - 1), np.float32(0.2))

tick = jax.export.deserialize(bytearray(Path(tick_file).read_bytes()))
membranes = [np.full(a.shape, 9, a.dtype) for a in tick.in_avals[2:]]
ticks = []
for t in range(3):
    now, *membranes = tick.call(images[:2], np.full(2, t == 0), *membranes)
    ticks.append(now)
assert not [name for name in sys.modules if name.startswith(("seenn_jax", "flax"))]
np.savez(answers, logits=logits, timesteps=timesteps, ticks=np.stack(ticks, 1))
"""


def elsewhere(run, images, folder, environment):
    """{timesteps, logits at the exit, ticks of two images} by a process that has jax alone."""
    np.save(folder / "images.npy", images)
    paths = [folder / name for name in ("images.npy", "tick", "slots", "answers.npz")]
    write_tick(paths[1], run, 2, platforms=["cpu"])
    write_slots(paths[2], run, len(images), slots=4, platforms=["cpu"])
    call = [sys.executable, "-c", ELSEWHERE, *map(str, paths)]
    done = subprocess.run(call, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(paths[3])


@pytest.mark.slow  # for the start of another process
def test_it_runs_without_the_package(trained, tmp_path, environment):
    run = load(trained)
    images = run.dataset.test.images[:9]
    found = elsewhere(run, images, tmp_path, environment)
    ours = run.predict(images, exit="confidence", choice=Given(0.2))
    np.testing.assert_array_equal(found["timesteps"][:-1], ours.timesteps[:-1])
    np.testing.assert_array_equal(found["logits"][:-1].argmax(-1), ours.classes[:-1])
    assert found["timesteps"][-1] == 0  # beyond the count
    assert 1 < ours.timesteps.mean() < 3
    np.testing.assert_allclose(found["ticks"], run.logits(images[:2]), atol=1e-5)


def test_mistakes(trained, tmp_path):
    run, path = load(trained), tmp_path / "a.stablehlo"
    for write, match in (
        (lambda: write_tick(path, run, 0), r"`slots` is 0: it must be at least 1"),
        (lambda: write_slots(path, run, 0), r"`images` is 0: it must be at least 1"),
        (lambda: write_slots(path, run, 2, "no"), r"unknown exit 'no'"),
        (lambda: write_tick(path, run, platforms=["abacus"]), r"`platforms` are abacus: give some"),
        (lambda: write_tick(tmp_path, run), r"exists already: give the name of a new file"),
    ):
        with pytest.raises(UserError, match=match):
            write()
    assert not path.exists()
