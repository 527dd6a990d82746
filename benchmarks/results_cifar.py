"""Sections of docs/results.md about networks on the original CIFAR images."""

from tables import all_of, count, mean, minutes, percent, section, sources, span, table

NEW, COPIED = "taught", "taught from its weights"
# Networks with a teacher: data, T, how, target of timesteps on average.
TAUGHT = (
    ("CIFAR-10", 4, COPIED, 1.09),
    ("CIFAR-10", 4, COPIED, 1.2),
    ("CIFAR-10", 4, NEW, 1.09),
    ("CIFAR-10", 4, NEW, 1.2),
    ("CIFAR-10", 2, COPIED, 1.09),
    ("CIFAR-10", 2, COPIED, 1.2),
    ("CIFAR-10", 2, NEW, 1.09),
    ("CIFAR-10", 2, NEW, 1.2),
    ("CIFAR-100", 2, COPIED, 1.09),
    ("CIFAR-100", 2, COPIED, 1.18),
    ("CIFAR-100", 2, NEW, 1.09),
    ("CIFAR-100", 2, NEW, 1.2),
)
STARTS = {NEW: "new", COPIED: "the teacher's"}
HEADLINES = (TAUGHT[0], ("CIFAR-100", 2, COPIED, 1.18))  # of README.md
TEACHER, OF_RELUS = "The teacher on", "ResNet-19 with ReLUs"


def taught_rows(data: str, timesteps: int, how: str, target: float) -> list[dict]:
    """The rows of all seeds of a taught ResNet-19 at a target of timesteps, by seed."""
    what = f"SEENN-I on {data}: ResNet-19, T = {timesteps}, {how}, at {target} timesteps"
    found = [r for r in all_of("cifar_taught") if r["what"].partition(", seeds")[0] == what]
    return sorted((row for r in found for row in r["figures"]["rows"]), key=lambda r: r["seed"])


def taught() -> str:
    """SEENN-I with a teacher."""
    networks, runs, teachers = [], [], _teachers()
    for data, timesteps, how, target in TAUGHT:
        rows = taught_rows(data, timesteps, how, target)
        accuracy = [row["accuracy"] for row in rows]
        teacher = teachers[data, how == COPIED]
        networks.append(
            [
                *(data, timesteps, STARTS[how], target),
                f"{mean(row['average_timesteps'] for row in rows):.3f}",
                *(percent(mean(accuracy)), span(accuracy), len(rows)),
                percent(mean(row["static_accuracy"][-1] for row in rows)),
                percent(teacher["figures"]["accuracy"]),
            ]
        )
        runs += [
            [
                *(data, timesteps, STARTS[how], target, row["seed"], f"{row['threshold']:.4f}"),
                *(f"{row['average_timesteps']:.4f}", percent(row["accuracy"])),
                *(percent(row["static_accuracy"][0]), percent(row["static_accuracy"][-1])),
                minutes(row["seconds"]),
            ]
            for row in rows
        ]
    seconds = ", ".join(minutes(record["figures"]["seconds"]) for record in teachers.values())
    return section(
        "CIFAR, taught",
        "ResNet-19, taught by the same network with ReLUs, by its confidence in slots. The "
        "threshold is chosen on the 5,000 images held out: at most the target of timesteps on "
        "average there. Accuracy in percent of the 10,000 test images. Those whose first weights "
        "are the teacher's have the triangle as their surrogate, a weight of the teacher of 0.9 in "
        "place of 0.5, and a teacher of 180 epochs in place of 162.",
        table(
            [
                *("data", "T", "first weights", "target", "timesteps", "accuracy", "from"),
                *("seeds", "all T", "teacher"),
            ],
            networks,
        ),
        f"Each run; the teachers took {seconds} besides:",
        table(
            [
                *("data", "T", "first weights", "target", "seed", "threshold", "timesteps"),
                *("accuracy", "t = 1", "all T", "trained in"),
            ],
            runs,
        ),
        "![Accuracy of ResNet-19 on CIFAR-100 against average timesteps](cifar100_curve.png)",
        _twice(),
        "Accuracy while they learn, drawn by `python benchmarks/learning_curves.py "
        "results/learning/*.csv --picture=docs/learning.png`:",
        "![Accuracy against epochs, of training images and those held out](learning.png)",
        sources(*all_of("cifar_taught")),
    )


def _teachers() -> dict[tuple[str, bool], dict]:
    """The record of a teacher by data, and whether it is one of 180 epochs, not 162."""
    found = [r for r in all_of("cifar_taught") if r["what"].startswith(TEACHER)]
    of = {}
    for record in found:
        data, _, what = record["what"].removeprefix(f"{TEACHER} ").partition(": ")
        of[data, what.startswith(f"{OF_RELUS}, 180 epochs")] = record
    return of


def _twice() -> str:
    """What became of a whole training that was run twice."""
    [record] = [r for r in all_of("cifar_taught") if "runs" in r["figures"]]
    figures = record["figures"]
    first, second = figures["last_losses"]
    return (
        f"The same seed gave the same network: of {figures['runs']} runs of the teacher on "
        f"CIFAR-100, each on a card of its own, all metrics of the {figures['epochs']} epochs are "
        f"the same to the last bit (the last losses are {first!r} and {second!r})."
    )


def policies() -> str:
    """SEENN-II of the taught networks beside the confidence of the same."""
    records = all_of("cifar_policy")
    figures = records[0]["figures"]
    rows, behind = [], {}
    for record in records:
        data = record["what"].removeprefix("SEENN-II on ").partition(":")[0]
        for row in record["figures"]["rows"]:
            less = 100 * (row["confidence_accuracy"] - row["accuracy"])
            behind.setdefault(data, []).append(less)
            rows.append(
                [
                    *(data, STARTS[COPIED if COPIED in record["what"] else NEW]),
                    *(row["seed"], row["target"], f"{row['average_timesteps']:.3f}"),
                    percent(row["accuracy"]),
                    f"{row['confidence_timesteps']:.3f}",
                    *(percent(row["confidence_accuracy"]), f"{less:.2f}"),
                    *map(percent, row["static_accuracy"]),
                    minutes(row["training_seconds"]),
                ]
            )
    points = ", and ".join(
        f"by {span(x, '{:.2f}'.format)} points on {data}" for data, x in behind.items()
    )
    return section(
        "CIFAR, SEENN-II",
        "A policy of the taught ResNet-19, which sends each image to t = 1 or 2, beside the "
        "confidence of the same network; each for the target of timesteps on the validation split. "
        "It learns from the images that the network has learnt, of which the network knows most, "
        f"and stays behind, {points}, where the paper has it 0.7 in front on CIFAR-100. "
        f"It costs {figures['policy_mmac']} million MACs an image, where a timestep of the network "
        f"is {figures['network_mmac']:,}.",
        table(
            [
                *("data", "first weights", "seed", "target", "timesteps", "policy", "timesteps"),
                *("confidence", "behind", "t = 1", "t = 2", "trained in"),
            ],
            rows,
        ),
        sources(*records),
    )


def guaranteed() -> str:
    """Thresholds with a guarantee."""
    [record] = all_of("cifar_guarantee")
    rows = record["figures"]["rows"]
    first = rows[0]
    return section(
        "CIFAR-10, with a guarantee",
        f"The threshold at which at most {100 * first['eps']:g} % of answers are others than "
        f"those of all T, with probability {1 - first['delta']:g} over the {first['n']:,} images "
        f"held out (Learn-then-Test); and how many were, of {first['num_samples']:,} test images.",
        table(
            ["seed", "threshold", "timesteps", "accuracy", "all T", "others held out", "others"],
            [
                [
                    *(row["seed"], f"{row['threshold']:.4f}", f"{row['average_timesteps']:.3f}"),
                    *(percent(row["accuracy"]), percent(row["static_accuracy"][-1])),
                    *(f"{100 * row[x]:.2f} %" for x in ("empirical_risk", "reported_risk")),
                ]
                for row in rows
            ],
        ),
        sources(record),
    )


def converted_rows(target: float) -> list[dict]:
    """The rows of all seeds of the taught, converted ResNet-18 at a target of timesteps."""
    return [row for row in _converted() if row["how"] == "taught" and row["target"] == target]


def _converted() -> list[dict]:
    """All rows, with how the network learnt."""
    rows = []
    for record in all_of("cifar_converted"):
        how = record["what"].rpartition("QCFS, ")[2].partition(", seeds")[0]
        same = {"how": how, "seed": record["seed"], "seconds": record["figures"].get("seconds")}
        rows += [same | row for row in record["figures"]["rows"]]
    return sorted(rows, key=lambda row: (row["how"], row["seed"], row["target"]))


def converted() -> str:
    """Ordinary networks, converted."""
    records, rows = all_of("cifar_converted"), _converted()
    ticks = [t for t in records[0]["figures"]["timesteps"] if t <= len(rows[0]["static_accuracy"])]
    networks = list({(row["how"], row["seed"]): row for row in rows}.values())
    targets = sorted({row["target"] for row in rows})
    means = [_mean_at(converted_rows(target)) for target in targets]
    sources_of = {r["what"].rpartition("QCFS, ")[2]: r["figures"] for r in records}
    ordinary = ", ".join(
        f"{percent(figures['ann_accuracy'])} {how}"
        for how, figures in sources_of.items()
        if "ann_accuracy" in figures
    )
    return section(
        "CIFAR-10, converted",
        "ResNet-18 with QCFS activations, learnt at 1, 2, 4 and 8 levels at once, converted and "
        f"left by confidence (T = 8). Taught, {len(converted_rows(targets[0]))} seeds: "
        f"{', '.join(means)} timesteps. SEENN's paper has 93.63 % at 1.4.",
        table(
            ["", "seed", "target", "threshold", "timesteps", "accuracy", "trained in"],
            [
                [
                    *(row["how"], row["seed"], row["target"], f"{row['threshold']:.4f}"),
                    *(f"{row['average_timesteps']:.3f}", percent(row["accuracy"])),
                    minutes(row["seconds"]),
                ]
                for row in rows
            ],
        ),
        f"All of so many timesteps; the ordinary networks of seed 0 have {ordinary}:",
        table(
            ["", "seed", *(f"T = {t}" for t in ticks)],
            [
                [row["how"], row["seed"], *(percent(row["static_accuracy"][t - 1]) for t in ticks)]
                for row in networks
            ],
        ),
        sources(*records),
    )


def _mean_at(rows: list[dict]) -> str:
    accuracy = [row["accuracy"] for row in rows]
    timesteps = mean(row["average_timesteps"] for row in rows)
    return f"{percent(mean(accuracy))} ({span(accuracy)}) at {timesteps:.3f}"


def neurons() -> str:
    """Kinds of neurons in the same network and schedule."""
    [record] = all_of("cifar_neurons")
    rows, lines = record["figures"]["rows"], []
    for kind in dict.fromkeys(row["neuron"] for row in rows):
        found = [row for row in rows if row["neuron"] == kind]
        accuracy = [row["accuracy"] for row in found]
        lines.append(
            [
                *(kind, len(found), f"{mean(row['average_timesteps'] for row in found):.3f}"),
                *(percent(mean(accuracy)), span(accuracy)),
                percent(mean(row["static_accuracy"][-1] for row in found)),
                f"{mean(row['synaptic_operations'][0] for row in found) / 1e6:,.0f}",
                minutes(mean(row["seconds"] for row in found)),
            ]
        )
    return section(
        "CIFAR-10, neurons",
        "ResNet-19 with LIF neurons, with those whose decay each layer learns (PLIF), and with "
        "integer spikes up to 4 (I-LIF), in the same short schedule, left by confidence. A decay "
        "that is learnt makes no difference. Integers are far better and send more: millions of "
        "synaptic operations an image at t = 1, in which a spike of 3 counts as three.",
        table(
            [
                *("neurons", "seeds", "timesteps", "accuracy", "from", "all T", "operations"),
                "trained in",
            ],
            lines,
        ),
        sources(record),
    )


def networks() -> str:
    """Other networks than ResNet-19."""
    records = all_of("cifar_networks")
    return section(
        "CIFAR-10, other networks",
        "Left by confidence, thresholds chosen on the validation split; one seed.",
        table(
            ["network", "T", "target", "timesteps", "accuracy", "t = 1", "all T", "trained in"],
            [
                [
                    record["what"].partition(" on ")[0],
                    *(len(row["static_accuracy"]), row["target"]),
                    *(f"{row['average_timesteps']:.3f}", percent(row["accuracy"])),
                    *(percent(row["static_accuracy"][t]) for t in (0, -1)),
                    minutes(record["figures"]["seconds"]),
                ]
                for record in records
                for row in record["figures"]["rows"]
            ],
        ),
        sources(*records),
        *_ticks(),
    )


def _ticks() -> tuple[str, ...]:
    """How long these networks take for a tick, beside ResNet-19."""
    [record] = all_of("cifar_ticks")
    slots = record["figures"]["slots"]
    rows = []
    for row in record["figures"]["rows"]:
        full, left = row["full"], row.get("slots")
        rate = full["images_per_second"]
        rows.append(
            [
                *(f"{row['network']}, width {row['width']}", count(rate)),
                f"{1e3 * slots / (rate * full['average_timesteps']):.2f}",
                count(left["images_per_second"]) if left else "",
            ]
        )
    return (
        f"A tick of {slots} images, {record['what'].partition(': ')[2]}; images a second at T = "
        f"{record['figures']['timesteps']} and, in slots, at 1.1 timesteps on average:",
        table(["network", "images/s, all T", "ms a tick", "images/s, in slots"], rows),
        sources(record),
    )


def gradients() -> str:
    """A gradient within each tick, and a number of timesteps drawn for each step."""
    [record] = all_of("cifar_gradients")
    figures = record["figures"]
    steps, lines = figures["steps"], []
    for row in figures["rows"]:
        peak = steps.get(row["how"], {}).get("peak_gib")
        lines.append(
            [
                *(row["how"], f"{row['average_timesteps']:.3f}", percent(row["accuracy"])),
                *(percent(row["static_accuracy"][t]) for t in (0, -1)),
                # A step that draws T has all of it.
                *(minutes(row["seconds"]), f"{peak:.1f}" if peak else "as bptt"),
            ]
        )
    return section(
        "CIFAR-10, gradients",
        "ResNet-19 of T = 4 in a short schedule, left by confidence; one seed. `bptt` is the "
        "gradient through all ticks, `last` that within each tick alone, *random T* draws 1 to 4 "
        "timesteps for each step and has the gradient through them all, so that its steps are "
        "shorter. BatchNorm's statistics are means over images that are augmented as in training; "
        "those that moved with the steps of all T are about as good, those of images as they are "
        "worse. Neither gradient is as accurate: each is for who lacks memory, or time.",
        table(
            ["", "timesteps", "accuracy", "t = 1", "all T", "trained in", "GiB, 256 images"], lines
        ),
        sources(record),
    )
