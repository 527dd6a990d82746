"""One device, eight of them, or two processes: the same training, its work divided."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from seenn_jax import devices
from seenn_jax.errors import UserError

ROOT = Path(__file__).parent.parent
EIGHT = {
    "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8",
    "JAX_PLATFORMS": "cpu",
}


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- The work of a device --------------------------------------------------------------------

FLOPS = """
import functools, json
import jax, numpy as np
from flax import nnx
from seenn_jax import devices
from seenn_jax.models.neurons import LIF
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.run import folder
from seenn_jax.training.feed import jitted_steps
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import Given, initial_state, train_step
from tests.conftest import tiny_config

class Small(SpikingResNet):
    stages = (1,)

eight = jax.devices()
images = np.random.default_rng(0).integers(0, 256, (128, 8, 8, 1), np.uint8)
labels = np.arange(128, dtype=np.int32) % 10
facts = folder.DataFacts((8, 8, 1), 10, [0.5], [0.25])
flops, losses = {}, {}
for accumulate in (1, 2):
    config = tiny_config(augment={"crop": 1, "flip": True, "cutout": 2, "mixup": 0.5})
    with config.unlocked():
        config.accumulate = accumulate
    optimizer = make_optimizer(config, 10)
    for count in (1, 2, 4, 8) if accumulate == 1 else (1, 8):
        kinds = {"neuron": LIF(), "dtype": "float32", "rngs": nnx.Rngs(0)}
        model = Small(4, image_shape=facts.image_shape, num_classes=10, **kinds)
        graph, state = initial_state(model, optimizer, config.ema)
        step = functools.partial(
            train_step, graph=graph, optimizer=optimizer, config=config,
            normalization=facts.normalization, num_classes=10, timesteps=2,
        )
        jitted = jitted_steps(step, steps=1, batch_size=64, among=eight[:count])
        copied = devices.everywhere(eight[:count])
        arguments = jax.device_put((state, Given(np.uint32(0)), images, labels), copied)
        program = jitted.lower(*arguments).compile()
        flops.setdefault(accumulate, {})[count] = program.cost_analysis()["flops"]
        losses.setdefault(accumulate, []).append(float(program(*arguments)[1]["loss"]))
print(json.dumps([flops, losses]))
"""


@pytest.mark.slow
def test_the_work_of_each_device_falls_with_their_number():
    """A step's FLOPs, as compiled for one of the devices: augmentation, network, optimiser."""
    flops, losses = run_python(FLOPS, **EIGHT)
    for found in flops.values():
        for count, each in found.items():
            # All but what does not depend on the batch: shuffling, the optimiser, the average.
            assert each / found["1"] == pytest.approx(1 / int(count), abs=0.03)
    for found in losses.values():
        assert found == pytest.approx([found[0]] * len(found), rel=1e-5)


SHARDED = """
import json
import jax, numpy as np
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from seenn_jax.models.resnet import SpikingBlock
from seenn_jax.models.network import run_all
from seenn_jax.models.neurons import LIF
from tests.models.networks import exact

def network(state, images):
    model = nnx.view(nnx.merge(network.graph, state, copy=True), use_running_average=True)
    return run_all(model, images, 2)

def block(state, images):
    repeated = jnp.tile(images[:, None], (1, 2, 1, 1, 2))
    loss = lambda state: jnp.sum(nnx.merge(block.graph, state, copy=True)(repeated)[0] ** 2)
    return jax.grad(loss)(state)

built = {
    network: exact("resnet8"),
    block: SpikingBlock(6, 8, 2, neuron=LIF(), dtype=jnp.float32, rngs=nnx.Rngs(0)),
}
images = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 8, 3), scale=3), jnp.float32)
flops = {}
for function, model in built.items():
    function.graph, state = nnx.split(model)
    results, flops[function.__name__] = [], []
    for devices in (1, 2, 4):
        mesh = jax.make_mesh(
            (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
        )
        batch = NamedSharding(mesh, PartitionSpec("data"))
        everywhere = NamedSharding(mesh, PartitionSpec())
        arguments = jax.device_put((state, images), (everywhere, batch))
        compiled = jax.jit(function).lower(*arguments).compile()
        flops[function.__name__].append(compiled.cost_analysis()["flops"])
        results.append(jax.device_get(compiled(*arguments)))
    # The same numbers, and not for want of spikes.
    for other in results[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-3), results[0], other)
    assert all(np.ptp(leaf) > 0 for leaf in jax.tree.leaves(results[0]) if leaf.ndim > 1)
print(json.dumps(flops))
"""


def test_the_work_of_inference_and_of_a_gradient_falls_too():
    """Of a network, and of a block with BatchNorm over the whole batch."""
    unoptimised = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # by LLVM: XLA divides the work
    for one, two, four in run_python(SHARDED, **EIGHT, **unoptimised).values():
        # All but what does not depend on the batch, such as BatchNorm's scales.
        assert two / one == pytest.approx(1 / 2, rel=0.05)
        assert four / one == pytest.approx(1 / 4, rel=0.05)


# --- Twenty steps ----------------------------------------------------------------------------

# An epoch is one step, so that the log has the loss of each. In float64: in float32 sums in another
# order let a spike at its threshold fall the other way sooner or later, and then all losses differ.
TWENTY = {
    "model": {"dtype": "float64", "width": 8},
    "data": {"validation": 1437 - 64},
    "epochs": 20,
    "inherit_epochs": 0,
    "timesteps": 2,
    "validate_every": 5,
}
CONFIG = f"""
from tests.conftest import tiny_config
def get_config(): return tiny_config(**{TWENTY})
"""
# train.py, killed where it would save a later step than it is told; then the run is evaluated, and
# others.
PROGRAM = """
import json, os, runpy, signal, sys
from pathlib import Path
import jax
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.run import checkpoints

last, workdir, others, *arguments = sys.argv[1:]
save = checkpoints.save

def save_or_die(manager, step, *rest):
    if step > int(last):
        manager.wait_until_finished()
        os.kill(os.getpid(), signal.SIGKILL)
    save(manager, step, *rest)

checkpoints.save = save_or_die
sys.argv = ["train.py", f"--workdir={workdir}", *arguments]
runpy.run_path("train.py", run_name="__main__")
for each in (workdir, *others.split()):
    result = evaluate(Path(each))
    if jax.process_index() == 0:
        print(json.dumps(result))
"""


STARTED = []


@pytest.fixture(autouse=True)
def _nothing_left_running():
    yield
    while STARTED:
        program = STARTED.pop()
        program.kill()
        program.communicate()


def start(environment, *arguments, script=("-c", PROGRAM)):
    program = subprocess.Popen(
        [sys.executable, *script, *map(str, arguments)],
        env=environment | {"JAX_ENABLE_X64": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(program)
    return program


def results_of(program):
    """(what it printed, results of its evaluations)"""
    out, err = program.communicate()
    assert program.returncode == 0, err
    lines = out.splitlines()
    said = [line for line in lines if not line.startswith("{")]
    return said, [json.loads(line) for line in lines if line.startswith("{")]


def losses_in(workdir):
    """{step: loss}"""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["train/loss"] for line in lines}


def losses_of(workdir):
    losses = losses_in(workdir)
    assert list(losses) == list(range(1, 21))
    return list(losses.values())


def assert_same(result, expected):
    for name in ("accuracy", "exit_shares", "static_accuracy", "oracle_aet", "checkpoint_step"):
        assert result[name] == pytest.approx(expected[name], abs=1e-9), name


@pytest.fixture(scope="module")
def config_flag(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "twenty.py"
    path.write_text(CONFIG)
    return f"--config={path}"


@pytest.fixture(scope="module")
def one_device(environment, config_flag, tmp_path_factory):
    """(workdir, result of its evaluation)"""
    workdir = tmp_path_factory.mktemp("one") / "run"
    _, (result,) = results_of(start(environment, 20, workdir, "", config_flag))
    return workdir, result


@pytest.mark.slow
def test_eight_devices_train_as_one(one_device, config_flag, environment, tmp_path):
    """Killed after 10 of 20 steps and resumed, by eight devices or by one."""
    alone, expected = one_device
    workdir = tmp_path / "run"
    killed = start(environment | EIGHT, 10, workdir, alone, config_flag)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    copy = shutil.copytree(workdir, tmp_path / "copy")
    for environment_, continued in ((environment | EIGHT, workdir), (environment, copy)):
        said, results = results_of(start(environment_, 20, continued, alone, config_flag))
        assert f"Continuing {continued} after epoch 10." in said
        np.testing.assert_allclose(losses_of(continued), losses_of(alone), rtol=1e-9)
        assert len(results) == 2
        for result in results:
            assert_same(result, expected)


def processes(environment, *arguments, differing=((), ()), **script):
    """Two of them, joined over loopback; each has its own of the `differing` arguments."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    joined = environment | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
    }
    return [
        start(
            joined | {"JAX_PROCESS_ID": str(index)},
            *arguments,
            *own,
            "--multihost",
            "--wait=60",
            **script,
        )
        for index, own in enumerate(differing)
    ]


@pytest.mark.slow
def test_two_processes_train_as_one(one_device, config_flag, environment, tmp_path):
    alone, expected = one_device
    workdir = tmp_path / "run"
    for killed in processes(environment, 10, workdir, "", config_flag):
        killed.communicate()
        assert killed.returncode < 0
    assert len(losses_in(workdir)) < 20
    # That they evaluate another's run as one is another test's.
    first, second = processes(environment, 20, workdir, "", config_flag)
    said, (result,) = results_of(first)
    assert f"Continuing {workdir} after epoch 10." in said
    np.testing.assert_allclose(losses_of(workdir), losses_of(alone), rtol=1e-9)
    assert_same(result, expected)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "epoch" not in out  # the first process alone speaks, logs and writes


@pytest.mark.slow
def test_two_processes_evaluate_as_one(one_device, environment, tmp_path):
    alone, expected = one_device
    workdir, result = shutil.copytree(alone, tmp_path / "run"), tmp_path / "result.json"
    flags = f"--workdir={workdir}", f"--json={result}"
    first, second = processes(environment, *flags, script=["evaluate.py"])
    said, err = first.communicate()
    assert first.returncode == 0, err
    assert "Report: " in said
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "Evaluating" not in out
    assert_same(json.loads(result.read_text()), expected)
    assert (workdir / "evaluation" / "confidence" / "report.html").is_file()


def test_processes_with_different_configs_are_named(config_flag, environment, tmp_path):
    flags = config_flag, f"--workdir={tmp_path / 'run'}"
    seeds = ["--config.seed=3"], ["--config.seed=4"]
    for process in processes(environment, *flags, differing=seeds, script=["train.py"]):
        _, err = process.communicate()
        assert process.returncode == 2
        assert "process 1 differs from process 0: it has config.seed 4 for 3; start all" in err
    assert not (tmp_path / "run").exists()


def test_a_batch_that_the_devices_cannot_share(monkeypatch):
    monkeypatch.setattr(devices.jax, "device_count", lambda: 8)
    devices.check_batch(64, 1)
    devices.check_batch(64, 2)
    with pytest.raises(UserError, match=r"`config\.batch_size` is 100, .* is 96 or 104; set"):
        devices.check_batch(100, 1)
    with pytest.raises(UserError, match=r"8 device\(s\) in 2 parts .* is 16; set"):
        devices.check_batch(8, 2)


# --- Inference -------------------------------------------------------------------------------


def test_a_program_of_inference_has_xlas_own_convolutions():
    def convolve(x, kernel):
        how = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=how)

    x, kernel = np.ones((256, 4, 4, 48), np.float32), np.ones((3, 3, 48, 48), np.float32)
    program = devices.for_inference(convolve)
    assert "ynn" not in program.lower(x, kernel).compile().as_text()
    np.testing.assert_array_equal(program(x, kernel)[:, 1:-1, 1:-1], 9 * 48)


def test_an_option_that_xla_lacks_is_left_out(monkeypatch):
    monkeypatch.setattr(devices, "WITHOUT_YNNPACK", {"xla_cpu_no_such_option": ""})
    devices._inference_options.cache_clear()
    try:
        assert devices.for_inference(lambda x: x + 1)(1) == 2
    finally:
        devices._inference_options.cache_clear()
