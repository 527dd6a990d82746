"""Networks for other software by the command line."""

import chex
import jax
import jax.export
import pytest
from flax import nnx

from seenn_jax.interop.files import read_state_dict
from seenn_jax.run import folder
from seenn_jax.run.inference import load
from tests.cli.conftest import check_refused
from tests.cli.test_import import checkpoint

MODULE = "seenn_jax/__main__.py"


@pytest.mark.slow  # for two runs that are made
def test_what_was_imported_is_exported_and_imported_again(program, tmp_path):
    file, runs = tmp_path / "again.st", [tmp_path / "first", tmp_path / "second"]
    source = checkpoint(tmp_path / "c10_res20")
    assert program(MODULE, "import", source, f"--workdir={runs[0]}")[0] == 0
    status, out, err = program(MODULE, "export", f"--workdir={runs[0]}", f"--safetensors={file}")
    assert (status, err) == (0, "")
    assert "the state dict of SEENN's resnet20, to convert, which fires at v > its thr" in out
    assert program(MODULE, "import", file, f"--workdir={runs[1]}")[::2] == (0, "")
    config, _ = folder.load(runs[0])
    assert folder.load(runs[1])[0].to_dict() == config.to_dict()
    [first, second] = (
        jax.device_get(nnx.state(load(each).trained.network(config)[0])) for each in runs
    )
    chex.assert_trees_all_equal(first, second)
    assert read_state_dict(source).keys() == read_state_dict(file).keys()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "there is nothing to write: give the path of a new file as --safetensors, --onnx"),
        (["--onnx=DIR"], "--onnx=DIR exists already: give the name of a new file"),
        (["--safetensors=DIR/a", "--slots=2"], "--slots=2 goes with --onnx and --stablehlo"),
        (["--onnx=DIR/a", "--slots=0"], "--slots is 0: it must be at least 1"),
        (["--safetensors=DIR/a"], "has no counterpart: in its names it would be taken for SEENN's"),
        (["--onnx=DIR/a", "--weights=digits-resnet8"], "name two networks"),
    ],
)
def test_mistakes(program, trained, tmp_path, arguments, match):
    arguments = [each.replace("DIR", str(tmp_path)) for each in arguments]
    found = program(MODULE, "export", f"--workdir={trained}", *arguments)
    check_refused(*found, match.replace("DIR", str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_a_tick_is_written_and_said(program, trained, tmp_path):
    path = tmp_path / "tick.stablehlo"
    status, out, err = program(
        MODULE, "export", f"--workdir={trained}", f"--stablehlo={path}", "--slots=2"
    )
    assert (status, err) == (0, "")
    assert out == f"{path}: one tick of 2 image(s), whose logits are summed over 3 ticks\n"
    program_of_jax = jax.export.deserialize(bytearray(path.read_bytes()))
    assert program_of_jax.in_avals[0].shape == (2, 8, 8, 1)
