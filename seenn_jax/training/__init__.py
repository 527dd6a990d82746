"""Training: the pure step (state.py), its loop, checkpoints and logs."""
