import pytest

from seenn_jax.config import default_config


def test_an_unknown_key_cannot_be_set():
    config = default_config()
    with pytest.raises(AttributeError, match="epoch"):
        config.epoch = 3
    with pytest.raises(AttributeError, match="widht"):
        config.model.widht = 3
