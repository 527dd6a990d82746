"""An ordinary ResNet-8 with QCFS activations on scikit-learn's digits, to be converted to spikes.

python train.py --config=configs/digits_qcfs.py
python evaluate.py --workdir=runs/digits_qcfs --conversion_report
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "digits"
    config.augment.crop = 1

    config.activation = "qcfs"
    config.quantization_levels = 8
    config.training_levels = (1, 2, 4, 8)
    config.model.name = "resnet8"
    config.model.width = 24
    config.timesteps = 8
    config.loss = "mean_ce"

    config.epochs = 40
    config.batch_size = 64
    config.optimizer.learning_rate = 0.1
    config.ema = 0.99
    config.validate_every = 5
    return config
