"""The toy network of benchmarks/serve_soak.py."""

from pathlib import Path

import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import serve_soak

FEATURES, T = serve_soak.FEATURES, serve_soak.T
toy, inputs, step = serve_soak.toy, serve_soak.inputs, serve_soak.step
offline, every_tick = serve_soak.offline, serve_soak.every_tick
storm, check_counters = serve_soak.storm, serve_soak.check_counters
