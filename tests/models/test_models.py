"""Networks by name: any size, their dtypes and seeds, and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.models import MODELS, build_model
from seenn_jax.models.network import run_all
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.ticks import currents
from tests.models.networks import DEEP, SHAPES, exact, small


@pytest.mark.parametrize(
    ("name", "width", "image_shape", "classes"),
    [
        ("resnet19", 1, (4, 4, 1), 2),
        ("resnet19", 3, (30, 17, 2), 7),
        ("resnet8", 5, (5, 9, 4), 3),
        ("resnet8", 16, (28, 28, 1), 10),
        ("resnet18", 2, (4, 4, 1), 2),
        ("resnet20", 3, (30, 17, 2), 7),
        ("resnet34", 2, (4, 5, 1), 2),
        ("resnet34", 2, (75, 64, 3), 10),
        ("vgg16", 1, (16, 16, 1), 2),
        ("vgg16", 3, (31, 50, 2), 7),
        ("vggsnn", 1, (16, 16, 1), 2),
        ("vggsnn", 3, (17, 17, 5), 11),
        ("vggsnn", 2, (48, 48, 2), 10),
        ("vggsnn", 2, (48, 32, 2), 10),
    ],
)
def test_any_width_size_channels_and_classes(name, width, image_shape, classes):
    model = nnx.eval_shape(
        lambda: build_model(name, width, image_shape=image_shape, num_classes=classes)
    )
    graph, state = nnx.split(nnx.view(model, use_running_average=True))
    inputs = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    logits = jax.eval_shape(lambda state, x: run_all(nnx.merge(graph, state), x, 3), state, inputs)
    assert logits.shape == (2, 3, classes)
    assert logits.dtype == jnp.float32


SLOW = [n for n in DEEP if n not in ("ms_resnet8", "sew_resnet8", "resnet34")]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in MODELS if n != "mlp"],
)
def test_width_is_that_of_the_first_layer(name):
    shape = (*SHAPES[name][:2], 3)
    model = nnx.eval_shape(lambda: build_model(name, 6, image_shape=shape, num_classes=2))
    first = model.convs[0] if name.startswith("vgg") else model.stem
    large = ("resnet34", "ms_resnet18", "ms_resnet18_i2e", "ms_resnet34", "sew_resnet18")
    size = 7 if name in (*large, "sew_resnet34", "sew_resnet50") else 3
    assert first.conv.kernel.shape == (size, size, 3, 6)


@pytest.mark.parametrize("name", ["resnet8", "vgg16"])
def test_bfloat16_is_for_activations_alone(name):
    state = nnx.state(nnx.eval_shape(lambda: small(name, dtype="bfloat16")))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    model = nnx.view(exact(name, dtype="bfloat16"), use_running_average=True)
    x = jax.ShapeDtypeStruct((2, *SHAPES[name]), jnp.bfloat16)
    shown = jax.eval_shape(lambda x: currents(model, x, 3), x)
    logits, _ = jax.eval_shape(model.integrate, shown)
    assert shown.dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32


class OneBlock(SpikingResNet):
    stages = (1,)


def test_parameters_follow_the_seed(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", OneBlock)
    monkeypatch.setitem(SHAPES, "tiny", (4, 4, 4))
    a, again, other = (jax.tree.leaves(nnx.state(small("tiny", seed=s))) for s in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(a, again, strict=True))
    assert any(not np.array_equal(x, y) for x, y in zip(a, other, strict=True))


@pytest.mark.parametrize(
    ("name", "width", "changes", "message"),
    [
        (
            *("resnet17", 4, {}),
            r"model 'resnet17': did you mean 'resnet19'.*resnet19, .*, vgg16, .*, vggsnn",
        ),
        ("resnet8", 4, {"dtype": "float16"}, r"dtype 'float16': .*bfloat16, float32, float64"),
        ("resnet8", 4, {"dtype": "float64"}, r"'float64' needs JAX_ENABLE_X64=1.*'float32'"),
        ("resnet8", 0, {}, r"width is 0: it must be at least 1; set `config.model.width`"),
        ("resnet8", 4, {"image_shape": (3, 8, 3)}, r"3x8 are too small for resnet8.*4x4"),
        ("vgg16", 4, {"image_shape": (32, 15, 3)}, r"32x15 are too small for vgg16.*16x16"),
        ("vggsnn", 4, {"image_shape": (15, 15, 2)}, r"15x15 are too small for vggsnn.*16x16"),
    ],
)
def test_mistakes(name, width, changes, message):
    arguments = {"image_shape": (32, 32, 3), "num_classes": 10} | changes
    with pytest.raises(UserError, match=message):
        build_model(name, width, **arguments)
