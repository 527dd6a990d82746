import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.config import default_config
from seenn_jax.errors import UserError
from seenn_jax.training.losses import LOSSES, make_loss, mean_cross_entropy, teaching, tet

LN3 = np.log(3)
# [B=1, T=2, K=2]: softmax (1/2, 1/2) and (9/10, 1/10); of the mean logits (3/4, 1/4).
LOGITS = jnp.array([[[0, 0], [2 * LN3, 0]]], jnp.float32)
FIRST = jnp.array([[1.0, 0.0]])
SOFT = jnp.array([[0.25, 0.75]])


def test_mean_cross_entropy_by_hand():
    assert mean_cross_entropy(LOGITS, FIRST) == pytest.approx(np.log(4 / 3), rel=1e-6)


def test_mean_cross_entropy_of_soft_targets():
    expected = -0.25 * np.log(0.75) - 0.75 * np.log(0.25)
    assert mean_cross_entropy(LOGITS, SOFT) == pytest.approx(expected, rel=1e-6)


def test_tet_by_hand():
    # Cross-entropies ln 2 and ln(10/9); squared distances to 1: 1, 1, (2 ln 3 - 1)^2, 1.
    cross_entropy = (np.log(2) + np.log(10 / 9)) / 2
    square = (3 + (2 * LN3 - 1) ** 2) / 4
    assert tet(LOGITS, FIRST, weight=0.0) == pytest.approx(cross_entropy, rel=1e-6)
    assert tet(LOGITS, FIRST, weight=1.0) == pytest.approx(square, rel=1e-6)
    expected = 0.75 * cross_entropy + 0.25 * square
    assert tet(LOGITS, FIRST, weight=0.25) == pytest.approx(expected, rel=1e-6)
    # The paper's weight is the default.
    expected = 0.999 * cross_entropy + 0.001 * square
    assert tet(LOGITS, FIRST) == pytest.approx(expected, rel=1e-6)


def test_tet_learns_the_answer_of_all_ticks():
    # From (3/4, 1/4), the answer of both, to (1/2, 1/2) and to (9/10, 1/10).
    first = 0.75 * np.log(3 / 2) + 0.25 * np.log(1 / 2)
    second = 0.75 * np.log(5 / 6) + 0.25 * np.log(5 / 2)
    expected = tet(LOGITS, FIRST) + 2 * (first + second) / 2
    assert tet(LOGITS, FIRST, distillation=2.0) == pytest.approx(float(expected), rel=1e-6)
    # The answer is a constant: d/do_t is (softmax(o_t) - answer) / T.
    gradient = jax.grad(tet)(LOGITS, FIRST, distillation=2.0) - jax.grad(tet)(LOGITS, FIRST)
    np.testing.assert_allclose(gradient, [[[-0.25, 0.25], [0.15, -0.15]]], rtol=1e-5)


def test_one_tick_has_nothing_to_learn_from_itself():
    one = LOGITS[:, 1:]
    assert tet(one, FIRST, distillation=2.0) == tet(one, FIRST)
    gradient = jax.grad(tet)(one, FIRST, distillation=2.0)
    np.testing.assert_allclose(gradient, jax.grad(tet)(one, FIRST), atol=1e-7)


def test_tet_of_soft_targets():
    cross_entropies = np.log(2), -0.25 * np.log(0.9) - 0.75 * np.log(0.1)
    assert tet(LOGITS, SOFT, weight=0.0) == pytest.approx(np.mean(cross_entropies), rel=1e-6)


def test_tet_of_one_tick_without_weight_is_cross_entropy():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(5, 1, 4)), jnp.float32)
    targets = jax.nn.softmax(jnp.asarray(rng.normal(size=(5, 4)), jnp.float32))
    got = tet(logits, targets, weight=0.0)
    assert got == pytest.approx(float(mean_cross_entropy(logits, targets)), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_mean_over_samples(name):
    loss = LOSSES[name](default_config())
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(3, 4, 5)), jnp.float32)
    targets = jax.nn.one_hot(jnp.array([0, 4, 2]), 5)
    each = [loss(logits[i : i + 1], targets[i : i + 1]) for i in range(3)]
    assert loss(logits, targets) == pytest.approx(np.mean(each), rel=1e-6)


def test_tet_teaches_every_tick_on_its_own():
    # d/do_t of the mean over ticks: (softmax(o_t) - y) / T.
    gradient = jax.grad(tet)(LOGITS, FIRST, weight=0.0)
    np.testing.assert_allclose(gradient, [[[-0.25, 0.25], [-0.05, 0.05]]], rtol=1e-5)
    # Of the mean logits: the same at each tick.
    gradient = jax.grad(mean_cross_entropy)(LOGITS, FIRST)
    np.testing.assert_allclose(gradient, [[[-0.125, 0.125], [-0.125, 0.125]]], rtol=1e-5)


def test_teaching_by_hand():
    # At temperature 2 the first tick gives (1/2, 1/2), the second (3/4, 1/4), the teacher the same.
    teacher = jnp.array([[2 * LN3, 0.0]])
    divergence = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert teaching(LOGITS, teacher, 2.0) == pytest.approx(4 * divergence / 2, rel=1e-5)
    assert teaching(LOGITS[:, 1:], teacher, 2.0) == pytest.approx(0, abs=1e-6)


def test_a_teacher_gets_no_gradient():
    teacher = jnp.array([[1.0, 0.0]])
    logits, of_teacher = jax.grad(teaching, (0, 1))(LOGITS, teacher, 2.0)
    np.testing.assert_array_equal(of_teacher, 0)
    assert jnp.abs(logits).max() > 0.1


def test_the_distillation_of_the_config_is_used():
    config = default_config()
    config.loss, config.tet_weight, config.tet_distillation = "tet", 0.0, 2.0
    logits = jnp.log(jnp.array([[[0.5, 0.5], [0.9, 0.1]]]))
    targets = jnp.array([[1.0, 0.0]])
    expected = tet(logits, targets, weight=0.0, distillation=2.0)
    assert LOSSES[config.loss](config)(logits, targets) == expected
    assert expected != tet(logits, targets, weight=0.0)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (lambda config: 1.0, "what the loss 'mine' gives is 1.0: it must take .logits, targets"),
        (lambda config: lambda logits: 1.0, "takes .logits. and is called with .logits, targets"),
        (lambda config: lambda logits, targets: targets, "gives float32.1, 2.: it must give one"),
        (lambda config: lambda logits, targets: jnp.int32(1), "must give one number, float32"),
        (lambda config: lambda logits, targets: (jnp.float32(1), 2), "must give one number"),
    ],
)
def test_a_loss_of_other_arguments_or_values_is_named(row, what):
    dict.__setitem__(LOSSES, "mine", row)
    config = default_config()
    config.loss = "mine"
    try:
        with pytest.raises(UserError, match=what):
            make_loss(config)(LOGITS, FIRST)
    finally:
        del LOSSES["mine"]


def test_a_network_of_other_classes_is_named():
    with pytest.raises(UserError, match=r"the network gives float32\[1, 2, 2\]: .* with K = 3"):
        make_loss(default_config())(LOGITS, jnp.ones((1, 3)))
