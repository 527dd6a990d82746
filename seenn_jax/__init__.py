"""Spiking neural networks that stop computing for a sample as soon as they are sure of it.

    import seenn_jax

    predictor = seenn_jax.load("runs/digits")
    found = predictor.predict(images)                # uint8 [N, H, W, C]
    found.classes, found.confidence, found.timesteps

What stands here is the public interface; each name is imported when it is first used.
"""

import importlib

_WHERE = {
    "__version__": "version",
    "load": "run.inference",
    "Predictor": "run.inference",
    "Predictions": "run.prediction",
    "export_weights": "run.weights",
    "train": "training",
    "evaluate": "evaluation.evaluate",
    "write_report": "report.files",
    "default_config": "config",
    "UserError": "errors",
    # Exits, and the ways to choose their value.
    "early_exit": "engine",
    "Exited": "engine",
    "Criterion": "exits",
    "above": "exits",
    "patience": "exits",
    "prescribed": "exits",
    "never": "exits",
    "confidence": "exits",
    "entropy": "exits",
    "margin": "exits",
    "Given": "exits",
    "Target": "exits",
    "Risk": "exits",
    "Tolerance": "exits",
    # What a plugin adds rows to, and what a row is.
    "NEURONS": "models",
    "Neuron": "models",
    "MODELS": "models",
    "PRECISIONS": "models.precision",
    "Precision": "models.precision",
    "DATASETS": "data",
    "Split": "data",
    "AUGMENTATIONS": "data",
    "Augmentation": "data",
    "LOSSES": "training.losses",
    "OPTIMIZERS": "training.optimizer",
    "SCHEDULES": "training.optimizer",
    "EXITS": "exits",
    "Score": "exits.rules",
    "Rising": "exits",
    "METHODS": "engine",
}
__all__ = [*_WHERE]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'seenn_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"seenn_jax.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
