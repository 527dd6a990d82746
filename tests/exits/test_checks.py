import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.errors import UserError


@pytest.mark.parametrize("value", [-0.1, 1.0001, 90, float("nan")])
def test_threshold_outside_the_unit_interval(value):
    with pytest.raises(UserError, match=rf"threshold {value} .*\[0, 1\]"):
        exits.check_threshold(value)


def test_thresholds_of_the_unit_interval_pass():
    for value in (0, 0.5, np.float64(0.9), 1.0):
        exits.check_threshold(value)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_sample_that_is_not_finite_is_named(bad, dtype):
    logits = np.zeros((9, 4, 3), dtype)
    exits.check_finite(logits)
    logits[[5, 7], 2, 1] = bad
    with pytest.raises(UserError, match=r"sample 5 .* 2 of 9"):
        exits.check_finite(logits)
    exits.check_finite(logits[:0])


def test_missing_labels():
    exits.check_labels(np.array([0, 3]), "accuracy")
    with pytest.raises(UserError, match=r"accuracy needs labels .*None"):
        exits.check_labels(None, "accuracy")
    with pytest.raises(UserError, match=r"sample 1 .* has -1"):
        exits.check_labels(np.array([0, -1]), "accuracy")
