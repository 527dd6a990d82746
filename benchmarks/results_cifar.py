"""Sections about networks on the original CIFAR images: docs/results.md and docs/ablations.md."""

from tables import all_of, find, mean, minutes, percent, section, sources, span, table

NEW, COPIED = "taught", "taught from its weights"
# Networks with a teacher: data, T, how, target of timesteps on average.
TAUGHT = (
    ("CIFAR-10", 4, COPIED, 1.09),
    ("CIFAR-10", 4, COPIED, 1.2),
    ("CIFAR-10", 4, NEW, 1.09),
    ("CIFAR-10", 4, NEW, 1.2),
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

ABLATIONS = """# What was tried

What could make the networks more accurate, one change at a time; what it gave decides what the
configs have. Printed from the records of `results/` by `benchmarks/print_results.py`."""


def taught_rows(data: str, timesteps: int, how: str, target: float) -> list[dict]:
    """The rows of all seeds of a taught ResNet-19 at a target of timesteps, by seed."""
    what = f"SEENN-I on {data}: ResNet-19, T = {timesteps}, {how}, at {target} timesteps"
    found = [r for r in all_of("cifar_taught") if r["what"].partition(", seeds")[0] == what]
    return sorted((row for r in found for row in r["figures"]["rows"]), key=lambda r: r["seed"])


def taught() -> str:
    """SEENN-I with a teacher."""
    networks, runs = [], []
    for data, timesteps, how, target in TAUGHT:
        rows = taught_rows(data, timesteps, how, target)
        accuracy = [row["accuracy"] for row in rows]
        teacher = find("cifar_taught", f"{TEACHER} {data}: {OF_RELUS}")["figures"]["accuracy"]
        networks.append(
            [
                *(data, timesteps, STARTS[how], target),
                f"{mean(row['average_timesteps'] for row in rows):.3f}",
                *(percent(mean(accuracy)), span(accuracy), len(rows)),
                percent(mean(row["static_accuracy"][-1] for row in rows)),
                percent(teacher),
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
    teachers = [r for r in all_of("cifar_taught") if r["what"].startswith(TEACHER)]
    seconds = ", ".join(minutes(record["figures"]["seconds"]) for record in teachers)
    return section(
        "CIFAR, taught",
        "ResNet-19, taught by the same network with ReLUs, by its confidence in slots. The "
        "threshold is chosen on the 5,000 images held out: at most the target of timesteps on "
        "average there. Accuracy in percent of the 10,000 test images. Those whose first weights "
        "are the teacher's have the triangle as their surrogate, and a weight of the teacher of "
        "0.9 in place of 0.5.",
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
    records = all_of("cifar100_policy")
    figures = records[0]["figures"]
    rows = [
        [
            STARTS[COPIED if COPIED in record["what"] else NEW],
            *(row["seed"], row["target"], f"{row['average_timesteps']:.3f}"),
            percent(row["accuracy"]),
            f"{row['confidence_timesteps']:.3f}",
            percent(row["confidence_accuracy"]),
            *map(percent, row["static_accuracy"]),
            minutes(row["training_seconds"]),
        ]
        for record in records
        for row in record["figures"]["rows"]
    ]
    behind = [
        100 * (row["confidence_accuracy"] - row["accuracy"])
        for record in records
        for row in record["figures"]["rows"]
    ]
    return section(
        "CIFAR-100, SEENN-II",
        "A policy of the taught ResNet-19, which sends each image to t = 1 or 2, beside the "
        "confidence of the same network; each for the target of timesteps on the validation split. "
        "It learns from the images that the network has learnt, of which the network knows most, "
        f"and stays behind, by {span(behind, '{:.2f}'.format)} points, where the paper has it 0.7 "
        f"in front. It costs {figures['policy_mmac']} million MACs an image, where a "
        f"timestep of the network is {figures['network_mmac']:,}.",
        table(
            [
                *("first weights", "seed", "target", "timesteps", "policy", "timesteps"),
                "confidence",
                *("t = 1", "t = 2", "trained in"),
            ],
            rows,
        ),
        sources(*records),
    )


def ablations() -> str:
    """What docs/ablations.md holds."""
    return "\n\n".join([ABLATIONS, short_runs(), two_teachers()]) + "\n"


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
