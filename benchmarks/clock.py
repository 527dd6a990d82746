"""How long functions take."""

import statistics
import time

import jax

RUNS = 5  # whose median counts


def microseconds(repeats, function, *arguments):
    """Median time of a call, of `RUNS` runs of `repeats` calls."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        for _ in range(repeats):
            out = function(*arguments)
        jax.block_until_ready(out)
        seconds.append((time.perf_counter() - started) / repeats)
    return statistics.median(seconds) * 1e6


def by_turns(repeats, functions):
    """{name: median seconds of a call} of {name: function of nothing}, called by turns."""
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
