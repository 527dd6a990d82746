"""What can't fit is said before it is allocated, and what fits is not refused."""

import pytest

from seenn_jax.config import default_config
from seenn_jax.errors import UserError
from seenn_jax.run.folder import DataFacts
from seenn_jax.training import size

FACTS = DataFacts((32, 32, 3), 10, [0.0] * 3, [1.0] * 3)


@pytest.fixture
def gib(monkeypatch):
    """A device of 1 GiB."""
    monkeypatch.setattr(size, "memory", lambda: 2**30)
    return default_config()


def test_parameters(gib):
    gib.model.width = 16
    size.check_size(gib, FACTS)
    gib.model.width = 100_000
    # 11,101 GiB of parameters in float32, three times.
    with pytest.raises(UserError, match=r"`config\.model\.width` is 100000.*take 33,30\d\.\d GiB"):
        size.check_size(gib, FACTS)


def test_parameters_beyond_numbers(gib):
    gib.model.width = 2**31 - 1
    with pytest.raises(UserError, match=r"`config\.model\.width` is 2147483647"):
        size.check_size(gib, FACTS)


def test_a_batch_by_hand(gib):
    # 8 x 8 places of 16 channels at each of T timesteps and 3,072 values of an image, in 4 bytes:
    # of 64 images, 1 GiB is reached between T = 4093 and 4094 timesteps.
    gib.timesteps = 4093
    size.check_size(gib, FACTS)
    gib.timesteps = 4094
    with pytest.raises(UserError, match=r"config\.timesteps`=4094.*alone takes 1\.0 GiB"):
        size.check_size(gib, FACTS)
    gib.accumulate = 2
    size.check_size(gib, FACTS)
    gib.update(accumulate=1, activation="relu")  # an ordinary network, of one timestep
    size.check_size(gib, FACTS)


def test_the_memory_of_this_machine(tmp_path, monkeypatch):
    whole = size.memory()
    assert 2**28 < whole < 2**50
    (tmp_path / "memory.max").write_text("1000\n")
    monkeypatch.setattr(size, "_CGROUP", tmp_path / "memory.max")
    assert size.memory() == 1000
    (tmp_path / "memory.max").write_text("max\n")
    assert size.memory() >= whole
