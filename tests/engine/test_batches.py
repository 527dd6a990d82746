"""Batches of any size: remainders, no samples at all, and what is computed once a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.engine import in_batches, replay, run_masked
from seenn_jax.engine.common import check_criterion
from seenn_jax.errors import UserError
from seenn_jax.exits import Criterion, prescribed


@pytest.mark.parametrize("slots", [1, 3, 7, 9])
def test_a_function_of_all_samples_in_batches(slots):
    inputs = {"a": np.arange(7.0), "b": np.arange(14).reshape(7, 2)}
    sizes = []

    def function(x):
        sizes.append(len(x["a"]))
        return x["a"] + x["b"].sum(1), x["b"]

    total, kept = in_batches(function, inputs, slots)
    assert set(sizes) == {min(slots, 7)}
    np.testing.assert_array_equal(total, inputs["a"] + inputs["b"].sum(1))
    np.testing.assert_array_equal(kept, inputs["b"])


def test_no_samples_in_batches():
    found = in_batches(lambda x: (x.sum(-1), x > 0), np.zeros((0, 3), np.float32), 4)
    assert [(x.shape, x.dtype.name) for x in found] == [((0,), "float32"), ((0, 3), "bool")]


def test_fewer_than_one_slot_for_a_function():
    with pytest.raises(UserError, match=r"`slots` is 0: it must be at least 1"):
        in_batches(lambda x: x, np.zeros(3), 0)


def test_what_a_masked_batch_prepares_is_computed_once():
    prepared = []

    def prepare(x):
        jax.debug.callback(lambda: prepared.append(1), ordered=True)
        return 10 * x

    times = jnp.asarray([1, 3, 2, 2, 1], jnp.int32)
    found = run_masked(
        lambda state, x: (state, jnp.stack([x, -x], -1)),
        jnp.float32(0),
        np.arange(5.0),
        prescribed(times),
        3,
        2,
        prepare=prepare,
    )
    jax.effects_barrier()
    assert len(prepared) == 3
    np.testing.assert_array_equal(found.logits[:, 0], 10 * np.arange(5.0) * times)


def test_all_ticks_at_once_say_a_criterion_that_is_none_or_does_not_decide():
    logits = jnp.zeros((3, 2, 4))
    # By itself: the annotations of `replay` object first where they are checked, as here.
    with pytest.raises(UserError, match="the criterion is a float: give a Criterion"):
        check_criterion(0.9)
    scores = Criterion((), lambda memory, z, t, index: (memory, z[:, 0]))
    with pytest.raises(UserError, match=r"decide returns .*a boolean that says whether it exits"):
        replay(logits, scores)
    pair = Criterion((), lambda memory, z, t, index: (memory, (t > 0, t > 0)))
    with pytest.raises(UserError, match="a boolean that says whether it exits"):
        replay(logits, pair)
