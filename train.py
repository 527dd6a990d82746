"""Train a spiking network: python train.py --config=configs/digits.py [--config.key=value ...]."""

from seenn_jax.cli.train import main

if __name__ == "__main__":
    main()
