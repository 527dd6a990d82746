"""A plugin: the smallest ResNet. Most of the time that tests of training take is compilation."""

from seenn_jax import MODELS
from seenn_jax.models.resnet import SpikingResNet


class OneBlock(SpikingResNet):
    """One stage of one block."""

    stages = (1,)


MODELS["one_block"] = OneBlock
