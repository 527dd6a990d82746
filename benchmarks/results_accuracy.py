"""Sections of docs/results.md about accuracy: each takes its figures from results/."""

import records
from tables import (
    all_of,
    by_timestep,
    count,
    find,
    minutes,
    percent,
    section,
    sources,
    span,
    table,
)

I2E_AVERAGES = (1.01, 1.25, 1.5, 2, 2.5, 3, 4)  # at most, of the points of the curve that are shown


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


# --- SEENN-II ------------------------------------------------------------------------------------


def policy() -> str:
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
    return section("SEENN-II", text, table(header, rows), picture, sources(several, less))


def _reached(row: dict) -> tuple[str, str]:
    return f"{row['average_timesteps']:.3f}", percent(row["accuracy"])


# --- Events, energy ------------------------------------------------------------------------------


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


def events_of_images() -> str:
    """I2E: events that are made of still images."""
    [record] = all_of("i2e")
    figures = record["figures"]
    sweep = records.load_rows(records.RESULTS / figures["sweep"])
    curve = [(float(row["average_timesteps"]), float(row["accuracy"])) for row in sweep]
    most = [max((x for x in curve if x[0] <= limit), default=None) for limit in I2E_AVERAGES]
    return section(
        "I2E-CIFAR10",
        by_timestep("MS-ResNet-18, all t", figures["static_accuracy"]),
        within(figures),
        f"The paper (AAAI 2026) has 89.23 % at T = {figures['timesteps']}, and no exits. The curve "
        "over thresholds, on the test split:",
        table(
            ["timesteps on average", *(f"{found[0]:.2f}" for found in most if found)],
            [["accuracy in percent", *(percent(found[1]) for found in most if found)]],
        ),
        "![Accuracy on I2E-CIFAR10 against average timesteps](i2e_curve.png)",
        f"Trained in {minutes(figures['seconds'])}; slots answer "
        f"{count(figures['images_per_second'])} images/s, all timesteps "
        f"{count(figures['all_timesteps_images_per_second'])}.",
        sources(record),
    )


def joules() -> str:
    """What a card takes, beside what is counted."""
    found = all_of("energy_h100")
    rows = [
        [
            *(record["what"].removeprefix("Energy of "), row["method"]),
            f"{1e3 * row['joules_per_image']:.2f}",
            span((row["least"], row["most"]), lambda x: f"{1e3 * x:.2f}"),
            *(count(row["watts"]), count(row["idle_watts"])),
            count(row["images_per_second"]),
            *(f"{1e3 * row[f'counted_{what}']:.2f}" for what in ("arithmetic", "moving")),
        ]
        for record in found
        for row in record["figures"]["rows"]
    ]
    header = ["network", "how", "mJ an image", "from", "W", "idle W", "images/s"]
    first = found[0]["figures"]
    return section(
        "Joules of a card",
        f"The energy counter of the card (NVML), without its host, at {first['slots']} slots and "
        f"{first['average_timesteps']:.3f} of {first['timesteps']} timesteps on average, beside "
        "what is counted for an image in millijoules: arithmetic at 45 nm, and moving weights, "
        "membranes and spikes (`seenn_jax.memory`).",
        table([*header, "counted: arithmetic", "moving"], rows),
        sources(*found),
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
