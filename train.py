"""Train a network: python train.py --config=configs/digits.py [--config.key=value ...]."""

from seenn_jax.cli.start import start

if __name__ == "__main__":
    start("train")
