"""Evaluate a trained network with early exit: python evaluate.py --exit=confidence."""

from seenn_jax.cli.evaluate import main

if __name__ == "__main__":
    main()
