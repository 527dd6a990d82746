"""What docs/ablations.md holds: what was tried, what it gave, and what it did not."""

from results_cifar import NEW, TAUGHT, taught_rows
from tables import all_of, count, find, mean, minutes, percent, section, sources, span, table

ABLATIONS = """# What was tried

What could make the networks more accurate or faster, one change at a time; what it gave decides
what the configs and the code have. Printed from the records of `results/` by
`benchmarks/print_results.py`."""


def ablations() -> str:
    """What docs/ablations.md holds."""
    return (
        "\n\n".join(
            [
                ABLATIONS,
                short_runs(),
                two_teachers(),
                fast_networks(),
                first_tick(),
                one_kernel(),
                kernels_of_training(),
                one_array(),
            ]
        )
        + "\n"
    )


def short_runs() -> str:
    """One change at a time, in short runs on CIFAR-100."""
    [record] = all_of("cifar100_short")
    rows = record["figures"]["rows"]
    parts = []
    for taught, title in ((False, "Without a teacher:"), (True, "With the teacher:")):
        found = [row for row in rows if row["taught"] == taught]
        plain = found[0]["validation_accuracy"]
        parts += [
            title,
            table(
                ["change", "flags", "held out", "difference", "as augmented"],
                [
                    [
                        row["what"],
                        f"`{row['flags']}`" if row["flags"] else "",
                        percent(row["validation_accuracy"]),
                        f"{100 * (row['validation_accuracy'] - plain):+.2f}" if number else "",
                        percent(row["train_accuracy"]),
                    ]
                    for number, row in enumerate(found)
                ],
            ),
        ]
    seeds = [row["validation_accuracy"] for row in rows if not row["taught"]][:2]
    return section(
        "Short runs on CIFAR-100",
        "ResNet-19 at T = 1, 45 epochs, one seed each. Accuracy in percent, of the 5,000 images "
        "held out and of the training images as augmented. Another seed moves it by "
        f"{100 * abs(seeds[0] - seeds[1]):.1f}: what is not well above that is no difference. What "
        "helps in a short run may only learn faster, and is to be shown in a whole one.",
        *parts,
        sources(record),
    )


def two_teachers() -> str:
    """What a second teacher gives, beside one."""
    records = all_of("cifar_two_teachers")
    rows = []
    for data, timesteps, how, target in (key for key in TAUGHT if key[1:3] == (2, NEW)):
        what = f"SEENN-I on {data}: ResNet-19, T = 2, taught by two, at {target} timesteps"
        both = find("cifar_two_teachers", what)["figures"]["rows"]
        for teachers, runs in (("one", taught_rows(data, timesteps, how, target)), ("two", both)):
            accuracy = [run["accuracy"] for run in runs]
            rows.append(
                [
                    *(data, target, teachers),
                    f"{mean(run['average_timesteps'] for run in runs):.3f}",
                    *(percent(mean(accuracy)), span(accuracy), len(runs)),
                    minutes(mean(run["seconds"] for run in runs)),
                ]
            )
    alone = "; ".join(
        f"{record['what'].removeprefix('Two teachers on ').partition(':')[0]} "
        + " and ".join(percent(row["accuracy"]) for row in record["figures"]["rows"])
        for record in records
        if record["what"].startswith("Two teachers")
    )
    return section(
        "Two teachers",
        "ResNet-19 at T = 2, whole runs, with two teachers, the mean of whose logits is learnt: no "
        f"difference. The teachers' own accuracy, in percent: {alone}.",
        table(
            ["data", "target", "teachers", "timesteps", "accuracy", "from", "seeds", "trained in"],
            rows,
        ),
        sources(*records),
    )


def fast_networks() -> str:
    """Networks of one timestep, trained in minutes."""
    records = all_of("cifar10_fast")
    rows = [row for record in records for row in record["figures"]["rows"]]
    taught = rows[-1]
    return section(
        "CIFAR-10 in minutes",
        "Networks of one timestep, which were to reach 95 % in four minutes, and did not. Without "
        "a teacher they fit the training images and stop there. With one, whose own training is "
        f"counted ({minutes(taught['teacher_seconds'])}, {percent(taught['teacher_accuracy'])} %), "
        "and with AutoAugment they are better in less time, and fit fewer of them. Accuracy "
        "in percent, of the training images as augmented, of those held out, and of the test "
        "images.",
        table(
            ["network", "flags", "training", "held out", "test", "trained in", "of it to compile"],
            [
                [
                    *(row["what"], f"`{row['flags']}`" if row["flags"] else ""),
                    *(percent(row[f"{x}accuracy"]) for x in ("train_", "validation_", "")),
                    *(minutes(row["seconds"]), f"{row['seconds_to_compile']} s"),
                ]
                for row in rows
            ],
        ),
        sources(*records),
    )


def first_tick() -> str:
    """A first tick for all images without membranes, then slots for those that stay."""
    [record] = all_of("tried_speed")
    rows = record["figures"]["rows"]
    [fresh] = [row for row in rows if row["how"] == "all at once"]
    slots = [row for row in rows if row["how"] == "slots"]
    expected = []
    for row in slots:
        average, rate = row["average_timesteps"], row["images_per_second"]
        # Who stays, at T = 2, begins again in a slot: two ticks more.
        seconds = 1 / fresh["images_per_second"] + 2 * (average - 1) / (rate * average)
        expected.append([f"{average:.3f}", count(rate), count(1 / seconds)])
    buffers = [row for row in rows if "buffers" in row["how"]]
    others = " and ".join(count(row["images_per_second"]) for row in buffers)
    return section(
        "A first tick without membranes",
        "Most images exit at t = 1, where every membrane is at rest and none is needed afterwards. "
        f"Such a tick, of {record['figures']['slots']} images and all at once, runs "
        f"{count(fresh['images_per_second'])} images/s. Those who stay would begin again in slots: "
        "what that would give at T = 2, beside slots alone, is no gain where every fifth image "
        "stays, and little where every tenth does. A layer and its neurons in one kernel, which "
        "slots have since then (docs/results.md), give more.",
        table(["timesteps on average", "slots, images/s", "expected of both"], expected),
        f"With XLA's command buffers for loops slots are as fast: {others} images/s.",
        sources(record),
    )


def one_kernel() -> str:
    """A layer and its neurons in one kernel: what was expected of it, and what it gave."""
    *_, slots, layers = all_of("fused")
    best: dict[tuple, float] = {}
    for row in layers["figures"]["rows"]:
        key = row["channels"], row["residual"], row["how"] == "apart"
        best[key] = min(best.get(key, row["microseconds"]), row["microseconds"])
    gains = [
        f"{best[channels, False, True] / best[channels, False, False]:.2f} of {channels} channels"
        for channels in dict.fromkeys(key[0] for key in best)
    ]
    ticks = [
        1e3 * slots["figures"]["slots"] / (row["images_per_second"] * row["average_timesteps"])
        for how in ("apart", "one kernel")
        for row in slots["figures"]["rows"]
        if (row["how"], row["dtype"]) == (how, "int8") and row["average_timesteps"] < 1.15
    ]
    return section(
        "A layer and its neurons in one kernel",
        "Expected: 14 bytes a neuron become 6, so that a layer of 128 channels is 1.9 times as "
        f"fast. Found, in a loop of one layer, times as fast: {', '.join(gains)}. A matrix product "
        "of gathered pixels is slower than the library's convolution where that is not held up by "
        f"memory. Yet a tick in slots takes {ticks[1]:.2f} ms in place of {ticks[0]:.2f}, more "
        "than these layers give; where the rest comes from was not looked into. Both on "
        f"{slots['device']}; [all figures](results.md#speed-of-early-exit).",
        *_one_kernel_in_bfloat16(),
    )


def _one_kernel_in_bfloat16() -> list[str]:
    [record] = all_of("tried_bf16")
    best: dict[tuple, float] = {}
    for row in record["figures"]["layers"]:
        key = row["channels"], row["residual"], row["how"] == "apart"
        best[key] = min(best.get(key, row["microseconds"]), row["microseconds"])
    rows = [
        [
            *(channels, "with" if residual else "without"),
            *(f"{best[channels, residual, apart]:.0f}" for apart in (True, False)),
        ]
        for channels, residual in dict.fromkeys(key[:2] for key in best)
    ]
    rates = [
        f"{count(row['images_per_second'])} ({row['how']}, {row['average_timesteps']:.2f})"
        for row in record["figures"]["slots"]
    ]
    return [
        "In bfloat16, expected: 0.9 of the time for layers of 128 channels. Found, the results "
        "being the same to the bit, the best of several sizes of blocks, in microseconds of a tick "
        f"of {record['figures']['batch_size']} images:",
        table(["channels", "residual", "apart", "one kernel"], rows),
        f"Images/s in slots, at so many timesteps: {', '.join(rates)}. So in bfloat16 they stay "
        "apart.",
        sources(record),
    ]


def kernels_of_training() -> str:
    """BatchNorm and neurons of a training step in one kernel each way."""
    of = {tuple(r["config"].values()): r["figures"] for r in all_of("train_step_h200")}
    images = min(size for size, _ in of)
    reached = [of[images, apart] for apart in (False, True)]
    rates = [count(figures["images_per_second"]) for figures in reached]
    memory = [f"{figures['memory_gib']:.1f}" for figures in reached]
    return section(
        "BatchNorm and neurons of a training step in one kernel each way",
        "XLA's plan of a step, compiled for such a card without one, moves 52 GB in place of 87. "
        "Expected from that and from the card's bandwidth: 8,800 images/s and 6.1 GiB, of steps of "
        f"{images} images. Found: {rates[0]} in place of {rates[1]}, and {memory[0]} GiB in place "
        f"of {memory[1]}; [all figures](results.md#training-step).",
    )


def one_array() -> str:
    """A server's call that the host was to send more quickly: slower under load."""
    [record] = all_of("tried_serving")
    figures = record["figures"]
    rows = [
        [
            *(row["precision"], row["how"], f"{row['p50_ms']:.1f} / {row['p99_ms']:.1f}"),
            *(count(row["load"]), f"{row['sustained'] / row['offline']:.2f}"),
        ]
        for row in sorted(figures["rows"], key=lambda row: row["precision"], reverse=True)
    ]
    return section(
        "One array for a server's call",
        "The host takes longer to send a call than the GPU to compute a few of "
        f"{figures['slots']} slots. Expected to halve that: what comes with a call as one array, "
        "the membranes of few slots written back by kernels that fit into a command buffer, and "
        "the next call sent before the answers of the last are given. Found: more latency and less "
        "throughput. The likely reason is that under load each call has other addresses, for which "
        "XLA writes its command buffers anew.",
        table(["precision", "", "p50 / p99, ms", "at images/s", "sustained, of offline"], rows),
        sources(record),
    )
