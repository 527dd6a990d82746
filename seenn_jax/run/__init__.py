"""A run: a folder with its config, what it knows of its data, checkpoints, logs and evaluations."""
