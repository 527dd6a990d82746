"""Makes golden/*.npz, for `test_golden.py`: python -m tests.models.make_golden (needs torch).

Networks of others are written here in PyTorch, in float64, with the neurons of their authors' code
(models/MS_ResNet.py of Ariande1/MS-ResNet; Network/MSNet.py of Ruichen0424/I2E; cifar10/model.py of
zhouchenlin2096/QKFormer and of ZK-Zhou/spikformer) and the names that layers have here.
"""

from pathlib import Path

from tests.interop import make_golden as base

GOLDEN = Path(__file__).parent / "golden"
WIDTH = 8


def lif(decay, threshold, share=1.0, strict=False):
    """v = decay v + share x, reset to zero."""

    def fire(network, x, place):
        limit = threshold / 2 if place.endswith("attend") else threshold
        v = network.membranes.get(place, 0) * decay + share * x
        spikes = (v > limit if strict else v >= limit).double()
        network.membranes[place] = (1 - spikes) * v
        return spikes

    return fire


def conv_bn(network, x, name, out, size=1, stride=1, bias=False):
    return network.norm(network.conv(x, name, out, size, stride, bias), f"{name}.bn")


def pooled(x):
    return base.functional.max_pool2d(x, 3, 2, 1)


def ms_resnet(first_stride, i2e=False):
    def block(network, x, place, out, stride):
        y, shortcut = x, x
        for index, step in enumerate((stride, 1)):
            y = network.fire(y, f"{place}.{index}")
            y = conv_bn(network, y, f"{place}.convs.{index}", out, 3, step)
        if stride > 1 or x.shape[1] != out:
            shortcut = network.fire(x, f"{place}.2") if i2e else x
            shortcut = conv_bn(network, shortcut, f"{place}.shortcut", out, 1, stride)
        return y + shortcut

    def forward(network, x):
        x = conv_bn(network, x, "stem", WIDTH, 7, 2)
        x, number = pooled(x) if i2e else x, 0
        for stage in range(4):
            for index in range(2):
                stride = 1 if index else 2 if stage else first_stride
                x = block(network, x, f"blocks.{number}", WIDTH * 2**stage, stride)
                number += 1
        if i2e:
            return network.linear(network.fire(x.mean((2, 3)), "last"), "head", base.CLASSES)
        return network.linear(network.fire(x, "last").mean((2, 3)), "head", base.CLASSES)

    return forward


def unit(network, x, place, out, size=1, stride=1, bias=False, pool=False):
    x = conv_bn(network, x, f"{place}.layer", out, size, stride, bias)
    return network.fire(pooled(x) if pool else x, place)


def heads(x):
    """[N, C, H, W] -> [N, heads, C / heads, tokens]."""
    return x.reshape(len(x), 8, x.shape[1] // 8, -1)


def mlp(network, x, place, attended):
    channels = x.shape[1]
    x = x + unit(network, attended, f"{place}.project", channels, bias=True)
    hidden = unit(network, x, f"{place}.expand", 4 * channels, bias=True)
    return x + unit(network, hidden, f"{place}.contract", channels, bias=True)


def token_block(network, x, place):
    q, k = (unit(network, x, f"{place}.{name}", x.shape[1]) for name in ("query", "key"))
    mask = network.fire(heads(q).sum(2, keepdim=True), f"{place}.attend")
    return mlp(network, x, place, (mask * heads(k)).reshape(x.shape))


def self_block(network, x, place, bias=False):
    q, k, v = (
        heads(unit(network, x, f"{place}.{name}", x.shape[1], bias=bias)).transpose(2, 3)
        for name in ("query", "key", "value")
    )
    attention = (q @ k.transpose(2, 3)) * 0.125  # [N, heads, tokens, tokens]
    attended = (attention @ v).transpose(2, 3).reshape(x.shape)
    return mlp(network, x, place, network.fire(attended, f"{place}.attend"))


def qkformer(network, x):
    x, number = network.fire(conv_bn(network, x, "stem", WIDTH, 3), "stem"), 0
    for stage, blocks in enumerate(([token_block], [token_block], [self_block] * 2)):
        out, place = WIDTH * 2 ** (stage + 1), f"blocks.{number}"
        y = unit(network, x, f"{place}.conv1", out, 3)
        if stage:
            y = unit(network, y, f"{place}.conv2", out, 3, pool=True)
        x = y + unit(network, x, f"{place}.shortcut", out, 1, 2 if stage else 1)
        for index, block in enumerate(blocks, number + 1):
            x = block(network, x, f"blocks.{index}")
        number += 1 + len(blocks)
    return network.linear(x.mean((2, 3)), "head", base.CLASSES)


def spikformer(network, x):
    x = network.fire(conv_bn(network, x, "stem", WIDTH, 3), "stem")
    x = unit(network, x, "blocks.0.conv1", 2 * WIDTH, 3)
    x = pooled(unit(network, x, "blocks.0.conv2", 4 * WIDTH, 3))
    x = pooled(unit(network, x, "blocks.0.conv3", 8 * WIDTH, 3))
    x = x + unit(network, x, "blocks.0.position", 8 * WIDTH, 3)
    for index in range(1, 5):
        x = self_block(network, x, f"blocks.{index}", bias=True)
    return network.linear(x.mean((2, 3)), "head", base.CLASSES)


# By the row of MODELS: forward pass, neuron, shape of an image.
HALVES = lif(0.5, 1.0, share=0.5)
NETWORKS = {
    "ms_resnet18": (ms_resnet(2), lif(0.25, 0.5, strict=True), (3, 32, 32)),
    "ms_resnet18_i2e": (ms_resnet(1, i2e=True), lif(0.5, 1.0), (2, 32, 32)),
    "qkformer": (qkformer, HALVES, (3, 16, 16)),
    "spikformer": (spikformer, HALVES, (3, 16, 16)),
}


if __name__ == "__main__":
    import torch

    base.torch, base.functional = torch, torch.nn.functional
    base.main(NETWORKS, GOLDEN)
