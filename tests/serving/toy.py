"""The toy network of benchmarks/served_toy.py."""

from pathlib import Path

import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import served_toy

FEATURES, T = served_toy.FEATURES, served_toy.T
toy, inputs, step = served_toy.toy, served_toy.inputs, served_toy.step
offline, every_tick = served_toy.offline, served_toy.every_tick
storm, check_counters = served_toy.storm, served_toy.check_counters
