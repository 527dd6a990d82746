"""A result on the console: concise, in 80 columns."""

import io

import pytest
from rich.console import Console

from seenn_jax.report.console import print_conversions, print_result
from tests.report.made_up import CONVERSION, made_up, printed


def test_console_at_80_columns():
    text = printed(made_up())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    flat = " ".join(text.split())
    assert flat.startswith(
        "3.4 times fewer timesteps, 90.12 % of answers right cifar10, test split"
    )
    assert "cifar10, test split, 10,000 samples, confidence exit" in flat
    assert "runs/cifar10, checkpoint of step 3,344" in flat
    assert "the pixels of this copy were JPEG-compressed" in flat
    for t, accuracy, share in (
        (1, "87.15 %", "87.77 %"),
        (2, "88.93 %", "9.21 %"),
        (3, "90.34 %", "0.98 %"),
        (4, "90.41 %", "2.04 %"),
    ):
        assert f"{t} {accuracy} {share}" in flat
    assert "accuracy 90.12 % at 1.173 timesteps on average (T = 4)" in flat
    assert "confidence threshold 0.629123, chosen on validation: fewest timesteps" in flat
    assert "0.629123 90.12 % 1.173 used" in flat
    assert "AET 1.336, oracle AET 1.152 timesteps" in flat
    assert "19,560 images/s" in flat
    assert len(text.splitlines()) < 35


def test_console_that_knows_only_ascii():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_result(made_up(), Console(file=file, width=80, force_terminal=False))
    file.flush()
    assert b"90.12 %" in file.buffer.getvalue()


@pytest.mark.parametrize(
    ("network", "said"),
    [("converted", ", converted network"), ("ANN", ", the ANN itself"), ("spiking", "exit\n")],
)
def test_the_kind_of_network_is_said(network, said):
    console = Console(file=io.StringIO(), width=100)
    print_result(made_up() | {"network": network}, console)
    assert f"confidence exit{said.removeprefix('exit')}" in console.file.getvalue()


def printed_conversions(reports):
    console = Console(file=io.StringIO(), width=80)
    print_conversions(reports, console)
    return console.file.getvalue()


def test_one_conversion_is_printed_with_its_layers():
    out = printed_conversions([CONVERSION])
    for figure in ("in %", "qcfs, L 8", "93.12", "70.01", "92.75", "1.250", "0.0125", "0.0312"):
        assert figure in out
    assert out.index("stem") < out.index("blocks.0.neuron1")


def test_several_conversions_are_printed_as_a_grid():
    relu = CONVERSION | {"activation": "relu", "quantization_levels": None, "ann_accuracy": 0.5}
    out = printed_conversions([CONVERSION, relu])
    assert out.index("93.12") < out.index("50.00")
    assert "relu" in out
    assert "stem" not in out
