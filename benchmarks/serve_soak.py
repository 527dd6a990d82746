"""Requests without end at a toy network, with everything that can happen to them.

    python benchmarks/serve_soak.py --requests=1000000
    python benchmarks/serve_soak.py --seconds=600

Random thresholds, deadlines, cancelled futures, a full queue and images that are not finite. Each
request is answered once, with the answer of the offline engine, and memory stays as it is.
"""

import collections
import math
import time
from pathlib import Path

import records
from absl import app, flags
from served_toy import check_counters, storm, toy

from seenn_jax.serving import Server

REQUESTS = flags.DEFINE_integer("requests", 1_000_000, "So many, or ...")
SECONDS = flags.DEFINE_float("seconds", None, "... for so long.")
TICKS = flags.DEFINE_integer("ticks_per_call", 2, "See `Server`.")
QUEUE = flags.DEFINE_integer("queue", 40, "See `Server`.")
JSON = flags.DEFINE_string("json", None, "Add the record to this file.")
ROUND = 20_000


def megabytes():
    """Resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main(_) -> None:
    """Storms of `ROUND` requests, and a line for each."""
    started, counts, memory = time.perf_counter(), collections.Counter(), []
    most = REQUESTS.value if SECONDS.value is None else math.inf
    with Server(toy(), slots=8, ticks_per_call=TICKS.value, queue=QUEUE.value) as server:
        while counts.total() < most:
            counts += storm(server, ROUND, seed=len(memory))
            check_counters(server, counts)
            memory.append(megabytes())
            seconds = time.perf_counter() - started
            print(f"{counts.total():,} requests, {seconds:.0f} s, {memory[-1]:.0f} MB", flush=True)
            if SECONDS.value is not None and seconds > SECONDS.value:
                break
    print(dict(counts))
    if JSON.value:
        middle = memory[len(memory) // 2]
        figures = {"requests": counts.total(), **counts, "seconds": seconds}
        figures |= {"megabytes_half_way": middle, "megabytes_at_the_end": memory[-1]}
        what = "Requests to a toy network, each answered once as by the offline engine"
        records.add(JSON.value, records.record(what, figures, seed=0))


if __name__ == "__main__":
    app.run(main)
