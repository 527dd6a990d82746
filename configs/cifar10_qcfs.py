"""An ordinary ResNet-18 with QCFS activations on CIFAR-10, converted to spikes afterwards.

    python train.py --config=configs/cifar10_qcfs.py     # trains runs/cifar10_ann first
    python evaluate.py --workdir=runs/cifar10_qcfs --conversion_report
    python evaluate.py --workdir=runs/cifar10_qcfs --target_timesteps=1.4
    python evaluate.py --workdir=runs/cifar10_qcfs --ann

After Bu et al., ICLR 2022; samples are quantised to 1, 2, 4 and 8 levels in training, for accuracy
at early timesteps, and an ordinary ResNet-19 teaches; docs/results.md has figures with and without.
One NVIDIA GPU of the Hopper generation takes eight minutes, and six for the teacher.
The baseline: --config.activation=relu in another --workdir.
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "cifar10"
    config.data.validation = 5000
    config.augment.crop = 4
    config.augment.flip = True
    config.augment.autoaugment = True
    config.augment.cutout = 8

    config.activation = "qcfs"
    config.quantization_levels = 8
    config.training_levels = (1, 2, 4, 8)
    config.model.name = "resnet18"
    config.model.width = 64
    config.model.dtype = "bfloat16"
    config.timesteps = 8
    config.loss = "mean_ce"
    # With a weight of 0.9, and from a rate of 0.1 at once, it learns nothing.
    config.teacher = "runs/cifar10_ann"
    config.teacher_weight = 0.5

    config.epochs = 300
    config.batch_size = 256
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule = "warmup_cosine"
    config.optimizer.weight_decay = 5e-4
    config.ema = 0.999
    config.validate_every = 10
    return config
