"""A checkpoint of other code becomes a run, which evaluation, prediction and NIR take."""

import json

import numpy as np
import pytest

from seenn_jax.run import folder
from tests.interop.make_golden import GOLDEN, drawn


def checkpoint(path):
    """A ResNet-20 of SEENN's, of ten classes."""
    with np.load(GOLDEN / "resnet20_seenn.npz") as golden:
        shapes = json.loads(golden["shapes"].item())
    shapes |= {"fc.weight": [10, shapes["fc.weight"][1]], "fc.bias": [10]}
    with path.open("wb") as file:
        np.savez(file, **{name: drawn(name, tuple(shape)) for name, shape in shapes.items()})
    return path


def test_a_run_is_made_and_said(program, tmp_path):
    path, workdir = checkpoint(tmp_path / "c10_res20"), tmp_path / "run"
    status, out, err = program("seenn_jax/__main__.py", "import", path, f"--workdir={workdir}")
    assert (status, err) == (0, "")
    assert "is SEENN's resnet20, to convert, which fires at v > its threshold" in out
    assert f"evaluate --workdir={workdir} --threshold=0.9" in out.replace("\n", " ")
    config, facts = folder.load(workdir)
    assert (config.model.name, config.model.width, config.timesteps) == ("resnet20_seenn", 4, 8)
    assert (config.data.name, facts.num_classes) == ("cifar10", 10)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "0 files are given: give the path of one checkpoint, and the --workdir"),
        (["a", "b"], "2 files are given"),
        (["no.pth"], "there is no checkpoint file at no.pth"),
        (["no.pth", "--timesteps=0"], "--timesteps is 0: it must be at least 1"),
        (["no.pth", "--data=cifar"], "there is no checkpoint file"),
    ],
)
def test_mistakes(program, arguments, match):
    status, out, err = program("seenn_jax/__main__.py", "import", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert match in err
