"""SEENN-I on CIFAR-10: QKFormer-4-384 at T = 4 (Zhou et al., NeurIPS 2024).

    python train.py --config=configs/cifar10_qkformer.py
    python evaluate.py --exit=confidence

Optimiser, schedule, epochs, batch, mixup and label smoothing are those of the authors' cifar10.yml
(96.21 % in the best epoch of their log). Theirs are RandAugment and random erasing, here
AutoAugment and Cutout; mixup ends there after half the epochs. Each tick is taught, for early exit,
and the first 320 epochs run one timestep. docs/results.md has it after 100 epochs.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.model.name = "qkformer"
    config.model.width = 48
    config.augment.mixup = 0.5

    config.epochs = 400
    config.inherit_epochs = 320
    config.batch_size = 64
    config.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.schedule = "warmup_cosine"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 6e-2
    return config
