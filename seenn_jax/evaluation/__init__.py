"""Evaluation: running a trained network with early exit, and showing what came of it."""
