"""What is moved, by hand."""

import numpy as np
import pytest

from seenn_jax import memory
from seenn_jax.memory import Moved, Sizes, account, bill, ordinary, sizes, spiking
from seenn_jax.models.network import for_inference
from seenn_jax.run.inference import load
from tests.test_energy import tiny

CHIP, DRAM = 12.5, 243.75  # pJ a byte


def test_the_sizes_of_a_tiny_network_by_hand():
    # A 3x3 image, a stem of two channels, 2x2 pixels of two channels, three logits.
    kernels, channels, head = 9 * 2 + 9 * 2 * 2, 2 + 2, 8 * 3 + 3
    assert sizes(tiny(), (3, 3, 1)) == Sizes(
        weights=4 * (kernels + 2 * channels + head),
        membranes=4 * (18 + 8),
        neurons=18 + 8,
        largest=18,
        currents=4 * 18,
        image=9,
        activation=4,
    )


def test_kernels_in_int8_are_a_quarter(trained):
    runs = load(trained), load(trained, precision="int8")
    whole, small = (sizes(for_inference(run.model, run.prepare), (8, 8, 1)) for run in runs)
    kernels = sum(layer.conv.kernel[...].size for layer in runs[0].model.spike_layers())
    assert whole.weights - small.weights == 3 * kernels
    assert whole._replace(weights=0) == small._replace(weights=0)


NETWORK = Sizes(1000, 400, 100, 60, 240, 9, 4)


def test_two_timesteps_on_the_chip_by_hand():
    found = spiking(NETWORK, 2)
    parts = {"spikes": 2 * 2 * 100 / 8, "membranes": 2 * 2 * 400, "currents": 3 * 240}
    parts |= {"weights": 2000, "image": 9}
    assert found["bytes"] == parts
    assert (found["chip"], found["dram"]) == (50 + 1600 + 720 + 2000, 9)
    assert found["picojoules"] == CHIP * 4370 + DRAM * 9


def test_integer_spikes_take_more_bits():
    found = spiking(NETWORK._replace(bits=3), 2)
    assert found["bytes"]["spikes"] == 3 * spiking(NETWORK, 2)["bytes"]["spikes"]


def test_event_data_have_an_image_and_no_kept_currents_at_each_timestep():
    found = spiking(NETWORK, 3, still=False)
    assert (found["bytes"]["currents"], found["bytes"]["image"]) == (0, 27)


def test_an_ordinary_network_by_hand():
    found = ordinary(NETWORK)
    assert found["bytes"] == {"activations": 800, "weights": 1000, "image": 9}
    assert found["picojoules"] == CHIP * 1800 + DRAM * 9


def test_what_has_no_room_comes_from_dram(monkeypatch):
    monkeypatch.setattr(memory, "CAPACITY", 150)
    kinds = {"first": Moved(100, 30.0), "second": Moved(200, 80.0), "third": Moved(1, 5.0)}
    found = bill(kinds, 0)
    # 50 of 200 bytes of the second have room, and nothing of the third.
    assert (found["chip"], found["dram"]) == (30 + 20, 60 + 5)
    assert found["picojoules"] == CHIP * 50 + DRAM * 65


def test_the_account_is_of_the_average():
    found = account(NETWORK, np.array([1, 2, 2, 1]), 3)
    assert found["at_exit"] == spiking(NETWORK, 1.5)
    assert found["by_timestep"] == [spiking(NETWORK, t) for t in (1, 2, 3)]
    mean = np.mean([spiking(NETWORK, t)["picojoules"] for t in (1, 2, 2, 1)])
    assert found["at_exit"]["picojoules"] == pytest.approx(mean)
    assert found["ann"] == ordinary(NETWORK)
