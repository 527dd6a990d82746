"""Evaluate a trained network with early exit: python evaluate.py --exit=confidence."""

from seenn_jax.cli.start import start

if __name__ == "__main__":
    start("evaluate")
