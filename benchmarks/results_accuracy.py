"""Sections of docs/results.md about accuracy: each takes its figures from results/."""

from tables import (
    all_of,
    by_timestep,
    count,
    find,
    mean,
    minutes,
    percent,
    section,
    sources,
    span,
    table,
)

CIFAR = "SEENN-I on CIFAR-10: ResNet-19, "
# Networks of SEENN-I on CIFAR-10: name, the records of its seeds.
NETWORKS = (
    ("T = 4", (f"{CIFAR}T = 4, seed 0", f"{CIFAR}T = 4, seeds 1 and 2")),
    (
        "T = 2, distillation",
        (f"{CIFAR}T = 2 with distillation", f"{CIFAR}T = 2 with distillation, trained before"),
    ),
    ("T = 4, distillation", (f"{CIFAR}T = 4 with distillation",)),
)


def network_rows(whats: tuple[str, ...]) -> list[dict]:
    """The rows of all seeds of a network of `NETWORKS`."""
    return [row for w in whats for row in find("cifar10_resnet19", w)["figures"]["rows"]]


def within(figures: dict) -> str:
    """An evaluation's early exit beside all timesteps, in a sentence."""
    return (
        f"With early exit: {percent(figures['accuracy'])} % at "
        f"{figures['average_timesteps']:.3f} timesteps on average, where all {figures['timesteps']}"
        f" give {percent(figures['static_accuracy'][-1])} % ({count(figures['num_samples'])} test "
        f"images). Threshold {figures['threshold']:.4f}, {figures['threshold_rule']}."
    )


# --- Accuracy ------------------------------------------------------------------------------------


def digits() -> str:
    """SEENN-I on digits."""
    record = find("digits", "SEENN-I on digits: ResNet-8, T = 4, confidence exit")
    figures = record["figures"]
    return section(
        "Digits",
        by_timestep("ResNet-8, T = 4", figures["static_accuracy"]),
        within(figures),
        f"The command, with the install: {minutes(figures['seconds_with_install'])}.",
        sources(record),
    )


def cifar10() -> str:
    """SEENN-I on CIFAR-10."""
    means, runs, found = [], [], []
    for name, whats in NETWORKS:
        rows = network_rows(whats)
        found += [find("cifar10_resnet19", what) for what in whats]
        accuracy = [row["accuracy"] for row in rows]
        means.append(
            [
                f"{name}, {len(rows)} runs",
                f"{mean(row['average_timesteps'] for row in rows):.3f}",
                percent(mean(accuracy)),
                span(accuracy),
                percent(mean(row["static_accuracy"][-1] for row in rows)),
                minutes(max(row["seconds"] for row in rows)),
            ]
        )
        runs += [
            [
                *(name, row["seed"], f"{row['average_timesteps']:.3f}", percent(row["accuracy"])),
                percent(row["replayed_accuracy"]) if "replayed_accuracy" in row else "",
                percent(row["static_accuracy"][0]),
                percent(row["static_accuracy"][-1]),
                count(row["images_per_second"]),
            ]
            for row in rows
        ]
    rule = found[0]["figures"]["rows"][0]["threshold_rule"]
    precisions = [
        find("cifar10_resnet19", f"{CIFAR}T = 4 without AutoAugment, {precision}")
        for precision in ("bfloat16", "int8")
    ]
    return section(
        "CIFAR-10, SEENN-I, on a JPEG-compressed copy",
        f"ResNet-19 by its confidence, at a threshold {rule}. Accuracy in percent, in slots; all "
        "T, and what is replayed, from the answers of all ticks at once.",
        "![Accuracy of ResNet-19 on CIFAR-10 against average timesteps](cifar10_curve.png)",
        table(
            ["network", "average timesteps", "accuracy", "runs from", "all T", "trained in"], means
        ),
        "Each run:",
        table(
            ["network", "seed", "timesteps", "accuracy", "replayed", "t = 1", "all T", "images/s"],
            runs,
        ),
        sources(*found),
        *_precisions(precisions),
    )


def _precisions(found: list[dict]) -> list[str]:
    """The same network in bfloat16 and in int8."""
    header = ["precision", "timesteps", "accuracy", "all T", "images/s", "answers that differ"]
    rows = [
        [
            figures["precision"],
            f"{figures['average_timesteps']:.3f}",
            percent(figures["accuracy"]),
            percent(figures["static_accuracy"][-1]),
            count(figures["images_per_second"]),
            f"{percent(figures['share_of_answers_that_differ'])} % and "
            f"{percent(figures['share_of_exit_times_that_differ'])} %",
        ]
        for figures in (record["figures"] for record in found)
    ]
    text = (
        "In int8 spikes are exact and weights are rounded per output channel. Answers, and exit "
        "times, that differ between slots and all ticks at once: in bfloat16 before inference had "
        "[one arithmetic](#one-answer)."
    )
    return [text, table(header, rows), sources(*found)]


def risk() -> str:
    """A threshold with a guarantee."""
    [record] = all_of("cifar10_risk")
    figures, given = record["figures"], record["figures"]["guarantee"]
    header = ["at most", "with probability", "threshold", "differ on validation", "p-value"]
    row = [
        f"{percent(given['eps'])} %",
        f"{1 - given['delta']:.2f}",
        f"{given['threshold']:.4f}",
        f"{percent(given['empirical_risk'])} % of {count(given['n'])}",
        f"{given['p_value']:.3f}",
    ]
    return section(
        "CIFAR-10, a threshold with a guarantee",
        "At most so many answers differ from those of all T.",
        table(header, [row]),
        within(figures),
        sources(record),
    )


# --- SEENN-II ------------------------------------------------------------------------------------


def below(figures: dict) -> list[list[float]]:
    """Points that each seed of a policy loses against all T: [in slots, replayed]."""
    lost = [], []
    for row in figures["rows"]:
        static = row["static_accuracy"][-1]
        # Where all T were not run in slots, they are replayed.
        lost[0].append(100 * (row.get("all_timesteps_accuracy", static) - row["accuracy"]))
        lost[1].append(100 * (static - row["replayed_accuracy"]))
    return list(lost)


def policy() -> str:
    """SEENN-II on CIFAR-10 and on digits."""
    first, *others = all_of("cifar10_policy")
    rows = first["figures"]["rows"]
    seeds = [
        [
            *(row["seed"], f"{row['average_timesteps']:.3f}", percent(row["accuracy"])),
            percent(row["all_timesteps_accuracy"]),
            percent(row["replayed_accuracy"]),
            percent(row["confidence_accuracy"]),
            percent(row["static_accuracy"][-1]),
        ]
        for row in rows
    ]
    settings = []
    for record in (first, *others):
        figures = record["figures"]
        in_slots, replayed = below(figures)
        settings.append(
            [
                record["what"].split(": ", 1)[1].removeprefix("ResNet-19, T = 2, "),
                figures["policy_mmac"],
                minutes(mean(row["training_seconds"] for row in figures["rows"])),
                f"{mean(in_slots):.2f}, {max(in_slots):.2f}",
                f"{mean(replayed):.2f}, {max(replayed):.2f}",
            ]
        )
    rates = span((row["images_per_second"] for row in rows), count)
    return section(
        "SEENN-II",
        "ResNet-19 at T = 2 on CIFAR-10, with the price for "
        f"{first['figures']['target']} timesteps on validation. Accuracy in percent, in slots and "
        "replayed from the answers of all ticks at once.",
        table(
            [
                *("seed", "timesteps", "SEENN-II in slots", "all T in slots"),
                *("SEENN-II replayed", "SEENN-I replayed", "all T replayed"),
            ],
            seeds,
        ),
        f"With the policy's time included {rates} images/s were evaluated. Points below all T, the "
        "mean of the seeds and the largest; where all T were not run in slots, below all T "
        "replayed:",
        table(["", "MMAC of the policy", "trained in", "in slots", "replayed"], settings),
        sources(first, *others),
        *_digits_policy(),
    )


def _digits_policy() -> list[str]:
    """SEENN-II on digits."""
    several, less = all_of("digits_policy")
    rows = [
        [f"{row['beta']:g}", row["seed"], record["figures"]["target"], *_reached(row)]
        for record in (several, less)
        for row in record["figures"]["rows"]
    ]
    first = several["figures"]["rows"][0]
    text = (
        f"ResNet-8 on digits, whose T = {first['timesteps']} give "
        f"{percent(first['static_accuracy'][-1])} % of {first['num_samples']} test images, so that "
        f"one is {100 / first['num_samples']:.2f} points."
    )
    header = ["beta", "seed", "price for", "timesteps", "accuracy"]
    picture = "![SEENN-II on digits at several beta](digits_policy_curve.png)"
    return [text, table(header, rows), picture, sources(several, less)]


def _reached(row: dict) -> tuple[str, str]:
    return f"{row['average_timesteps']:.3f}", percent(row["accuracy"])


# --- Conversion, events, energy ------------------------------------------------------------------


def conversion() -> str:
    """Converted networks on CIFAR-10."""
    found = all_of("cifar10_qcfs")
    networks, exits = [], []
    timesteps = found[0]["figures"]["timesteps"]
    for record in found:
        figures = record["figures"]
        name = record["what"].split("trained at ")[1]
        if "ann_accuracy" in figures:
            values = [figures["ann_accuracy"], *figures["accuracy"]]
            time = minutes(figures["training_seconds"])
            networks.append([name, *map(percent, values), time])
        else:
            reached = [f"{figures['average_timesteps']:.3f}", percent(figures["accuracy"])]
            last = percent(figures["static_accuracy"][-1])
            exits.append([name, *reached, last, count(figures["images_per_second"])])
    return section(
        "Conversion",
        "ResNet-18 with QCFS on CIFAR-10, converted to spikes; test accuracy in percent.",
        table(["", "ANN", *(f"t = {t}" for t in timesteps), "trained in"], networks),
        f"With early exit, at T = {figures['timesteps']}:",
        table(["", "timesteps", "accuracy", "all T", "images/s"], exits),
        "![Accuracy of the converted network against average timesteps](cifar10_qcfs_curve.png)",
        sources(*found),
    )


def events() -> str:
    """Recordings of a simulated event camera."""
    [record] = all_of("digits_dvs")
    figures = record["figures"]
    return section(
        "Event data",
        by_timestep("VGGSNN on digits_dvs", figures["static_accuracy"]),
        within(figures),
        f"Trained in {minutes(figures['training_seconds'])}.",
        "![Accuracy of digits_dvs against average timesteps](digits_dvs_curve.png)",
        sources(record),
    )


def energy() -> str:
    """Picojoules of arithmetic on digits."""
    found = all_of("digits_energy")
    rows = []
    for record in found:
        figures = record["figures"]
        stages = (figures["at_exit"], figures["by_timestep"][-1], figures["ann"])
        rows.append(
            [
                record["what"].removeprefix("Energy of the "),
                f"{figures['average_timesteps']:.3f}",
                *(count(stage["picojoules"] / 1e3) for stage in stages),
                span((layer["rate"] for layer in figures["rates"]), lambda x: f"{100 * x:.0f}"),
            ]
        )
    header = ["nJ an image", "timesteps", "at the exit", "at all T", "as an ANN", "% that fire"]
    return section("Energy", table(header, rows), sources(*found))
