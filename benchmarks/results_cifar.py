"""Sections of docs/results.md about networks on the original CIFAR images."""

from tables import all_of, mean, minutes, percent, section, sources, span, table

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


def converted() -> str:
    """Ordinary networks, converted."""
    records = all_of("cifar_converted")
    ticks = records[0]["figures"]["timesteps"]
    exits, static = [], []
    for record in records:
        figures, how = record["figures"], record["what"].rpartition(", ")[2]
        static.append(
            [how, percent(figures["ann_accuracy"]), *map(percent, figures["converted_accuracy"])]
        )
        exits += [
            [
                *(how, row["target"], f"{row['threshold']:.4f}"),
                *(f"{row['average_timesteps']:.3f}", percent(row["accuracy"])),
                minutes(figures["seconds"]),
            ]
            for row in figures["rows"]
        ]
    return section(
        "CIFAR-10, converted",
        "ResNet-18 with QCFS activations, learnt at 1, 2, 4 and 8 levels at once, converted and "
        "left by confidence (T = 8); one seed each. SEENN's paper has 93.63 % at 1.4 timesteps.",
        table(["", "target", "threshold", "timesteps", "accuracy", "trained in"], exits),
        "All timesteps, and the ordinary network itself:",
        table(["", "ANN", *(f"T = {t}" for t in ticks)], static),
        sources(*records),
    )
