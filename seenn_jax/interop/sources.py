"""Where a state dict comes from, told by the names in it.

SEENN is Intelligent-Computing-Lab-Yale/SEENN, with its SNN_conversion_QCFS. QCFS is
putshua/SNN_conversion_QCFS and ANN_SNN_QCFS, which is newer and says `.thresh` and `.act` where the
other says `.up` and `.relu`. TET is brain-intelligence-lab/temporal_efficient_training. SEW-ResNets
are SpikingJelly's (activation_based.model.sew_resnet, with the names of torchvision's ResNets) and
those of fangwei123456/Spike-Element-Wise-ResNet, which says `.conv1.module.0` for its `.conv1` and
`.conv1.module.1` for its `.bn1`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from seenn_jax.errors import UserError

# The same layer, listed a second time; and a number that nothing needs.
_LEFT_OUT = re.compile(r"\.seqbn\.|(conv|fc)\d_s\.|num_batches_tracked$")


class Source(NamedTuple):
    """Code that trains a network, and what its network is here.

    Attributes:
      about: in words.
      model: a row of `MODELS`.
      activation: a row of `NEURONS`.
      fires: ">=" at the threshold, or ">" above it.
      surrogate: of its training.
      first, last: names of the first convolution's weight and of the last bias.
      there, absent: names by which it is told from others.
      tau: decay of its neurons; 1 of IF neurons.
    """

    about: str
    model: str
    activation: str
    fires: str
    surrogate: str
    first: str
    last: str
    there: str
    absent: str = ""
    tau: float = 0.5


_OF_VGGSNN = ("features.0.fwd.module.0.weight", "classifier.module.bias")
SOURCES = (
    Source(
        *("SEENN's ResNet-19", "resnet19", "lif", ">=", "dspike"),
        *("conv1.weight", "fc1.module.bias", "layer1.0.conv1.module.weight"),
    ),
    Source(
        *("SEENN's VGG-16", "vgg16", "lif", ">=", "dspike"),
        *("features.0.module.weight", "classifier.0.module.bias", "features.1.bn.weight"),
    ),
    Source(
        *("SEENN's or TET's VGGSNN without pools", "vggsnn", "lif", ">", "triangle"),
        *(*_OF_VGGSNN, "features.2.fwd.module.0.weight"),
    ),
    Source(
        *("TET's or SEENN's VGGSNN", "vggsnn_pool", "lif", ">", "triangle"),
        *(*_OF_VGGSNN, "features.10.fwd.module.0.weight", "features.2.fwd.module.0.weight"),
    ),
    Source(
        *("TET's ResNet-19", "resnet19_tet", "lif", ">", "triangle"),
        *("conv1.weight", "fc2.bias", "layer1.0.downsample.layer.module.weight"),
    ),
    Source(
        *("QCFS's VGG-16", "vgg16_qcfs", "qcfs", ">=", "dspike"),
        *("layer1.0.weight", "classifier.7.bias", "layer1.2.up"),
    ),
)
# Networks by the blocks of each stage.
RESNETS = {
    (2, 2, 2, 2): "resnet18",
    (3, 3, 3): "resnet20",
    (3, 3, 2): "resnet20_seenn",
    (3, 4, 6, 3): "resnet34_small",
}

# SEW-ResNets by the blocks of each stage and the convolutions of a block.
SEW_RESNETS = {
    ((2, 2, 2, 2), 2): "sew_resnet18",
    ((3, 4, 6, 3), 2): "sew_resnet34",
    ((3, 4, 6, 3), 3): "sew_resnet50",
}
_RENAMED = (
    (r"\.act\.thresh$", ".relu.up"),
    (r"\.thresh$", ".up"),
    (r"\.conv(\d)\.module\.0\.", r".conv\1."),
    (r"\.conv(\d)\.module\.1\.", r".bn\1."),
    (r"\.downsample\.0\.module\.(\d)\.", r".downsample.\1."),
)


def canonical(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with each array once, in QCFS's older spelling and SpikingJelly's."""
    found = {}
    for name, array in state.items():
        if not _LEFT_OUT.search(name):
            for theirs, ours in _RENAMED:
                name = re.sub(theirs, ours, name)
            found[name] = array
    return found


def source_of(state: Mapping[str, Any]) -> Source:
    """Where a state dict comes from.

    Of ResNets with `.up`, ResNet-20 of nine blocks is the QCFS authors'. ResNet-18 and -34 are
    called the same in SEENN's code, for which they are taken.

    Raises:
      UserError: it is of none of `SOURCES`, of no ResNet of `RESNETS` with QCFS activations, and of
        no SEW-ResNet of `SEW_RESNETS`, or of one whose neurons have parameters.
    """
    known = canonical(state)
    if "conv1.2.up" in known:
        return _resnet(state)
    if {"conv1.weight", "layer1.0.bn1.weight", "fc.bias"} <= known.keys():
        return _sew_resnet(known)
    for source in SOURCES:
        wanted = {source.first, source.last, source.there}
        if wanted <= known.keys() and source.absent not in known:
            return source
    raise UserError(
        f"its tensors are called {', '.join(list(state)[:3])} ..., as in none that can be read: "
        f"{', '.join(source.about for source in SOURCES)}, ResNet-18, -20 and -34 with QCFS "
        "activations, SEW-ResNet-18, -34 and -50"
    )


def _resnet(state: Mapping[str, Any]) -> Source:
    blocks = _blocks(r"conv(\d+)_x\.(\d+)\.", state)
    if blocks not in RESNETS:
        raise UserError(
            f"it is of a ResNet with QCFS activations of {blocks} blocks: ones of "
            f"{', '.join(map(str, RESNETS))} can be read"
        )
    model = RESNETS[blocks]
    of_authors = model == "resnet20" or "conv1.2.thresh" in state
    return Source(
        f"{'QCFS' if of_authors else 'SEENN'}'s {model.split('_')[0]}, to convert",
        *(model, "qcfs", ">=" if of_authors else ">", "dspike"),
        *("conv1.0.weight", "fc.bias", "conv1.2.up"),
    )


def _sew_resnet(state: Mapping[str, Any]) -> Source:
    learnt = [name for name in state if re.search(r"sn\d?\.w$", name)]
    if learnt:
        raise UserError(
            f"it is of a SEW-ResNet whose neurons have parameters ({learnt[0]}): one of IF neurons "
            "can be read"
        )
    blocks = _blocks(r"layer(\d+)\.(\d+)\.", state)
    convolutions = 3 if "layer1.0.conv3.weight" in state else 2
    if (blocks, convolutions) not in SEW_RESNETS:
        raise UserError(
            f"it is of a SEW-ResNet of {blocks} blocks of {convolutions} convolutions: -18, -34 "
            "and -50 can be read"
        )
    model = SEW_RESNETS[blocks, convolutions]
    large = state["conv1.weight"].shape[-1] == 7
    return Source(
        f"a network by the names of SpikingJelly's SEW-ResNet-{model[-2:]}, which an ordinary "
        "ResNet has too, read as one that adds the spikes of IF neurons",
        *(model if large else f"{model}_small", "lif", ">=", "dspike"),
        *("conv1.weight", "fc.bias", "layer1.0.bn1.weight"),
        tau=1.0,
    )


def _blocks(pattern: str, state: Mapping[str, Any]) -> tuple[int, ...]:
    """Of each stage, by names that begin so, with the numbers of stage and block."""
    found = [re.match(pattern, name) for name in state]
    places = {each.groups() for each in found if each}
    stages = sorted({int(stage) for stage, _ in places})
    return tuple(sum(int(stage) == wanted for stage, _ in places) for wanted in stages)
