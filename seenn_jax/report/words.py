"""What an evaluation found, shown: on the console, as JSON, as two pictures and as one HTML page.

Everything here reads the same plain dict, `result`, which is what result.json holds:

- exit (a key of EXITS), knob (what its value is called), threshold (that value, a float; None for
  'full') and threshold_rule (how it was chosen, a phrase);
- accuracy, average_timesteps, and by timestep t = 1..T the lists exit_shares, static_accuracy;
- sweep: a list of {threshold, accuracy, average_timesteps, exit_counts}, empty for 'full'; the
  last is how many samples leave at each t;
- by_class: of each class {class, samples, right, exit_counts}, and mistakes, {label, answer, count}
  with classes as numbers, the most frequent first, 400 at most;
- calibration, as `evaluation.answers.calibration` gives it, of the confidence at the exit; and
  confidence_by_timestep, at each t the quantiles of the confidence of right and wrong answers;
- guarantee: a `thresholds.Guarantee` as a dict, with reported_risk, the mean loss on the split
  that is reported; None where none was asked for;
- policy: for that exit its candidates, beta, macs (of the policy network), network_macs (of one
  timestep), collapsed_to (the timesteps of every sample, or None) and confidence, SEENN-I beside
  it: threshold, accuracy, average_timesteps, sweep; else None. threshold is then the price;
- replayed_accuracy: of these exits by the answers of all ticks at once, as are static_accuracy,
  sweeps and SEENN-I's;
- aet, oracle_aet, oracle_accuracy (of an exit that knows the labels), num_samples, timesteps (T),
  images_per_second (or None);
- dataset, dataset_note (or None), split, seed, revision, versions (a dict), device, workdir,
  checkpoint_step;
- optional: network ('spiking', 'converted' or 'ANN'), energy, as `energy.account` gives it, with
  memory, as `memory.account` gives it (or None), and conversion, a report of
  `evaluation.conversion_report`. So are exit_counts, by_class, mistakes, calibration and
  confidence_by_timestep, which results of older versions lack.

Accuracies and shares are fractions of 1 in the dict, and percent in everything made from it.
"""

from typing import Any

AET_DEFINITION = (
    "AET is T minus the sum over t < T of the accuracy at t: the timesteps an image needs until "
    "it is classified right, averaged as if an image once right stayed right, and T for an image "
    "that never is."
)


ORACLE_DEFINITION = (
    "Oracle AET is the average over images of the first timestep whose answer is right, and T "
    "where none is: what an exit that knew the labels would need, at the highest accuracy any "
    "exit can reach."
)


SOURCE = "Li et al., SEENN: Towards Temporal Spiking Early-Exit Neural Networks, NeurIPS 2023"


def decider(result: dict[str, Any]) -> str:
    """What `threshold` is called."""
    return result["knob"]


def percent(fraction: float) -> str:
    """A fraction of 1 in percent."""
    return f"{100 * fraction:.2f} %"


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def subject(result: dict[str, Any]) -> str:
    """What was evaluated."""
    samples = plural(result["num_samples"], "sample")
    how = "no early exit" if result["exit"] == "full" else f"{result['exit']} exit"
    kinds = {"converted": ", converted network", "ANN": ", the ANN itself"}
    kind = kinds.get(result.get("network", ""), "")
    return f"{result['dataset']}, {result['split']} split, {samples}, {how}{kind}"


def origin(result: dict[str, Any]) -> str:
    """Of which run."""
    return f"{result['workdir']}, checkpoint of step {result['checkpoint_step']:,}"


def headline(result: dict[str, Any]) -> str:
    """What was found, in plain words."""
    right = f"{percent(result['accuracy'])} of answers right"
    timesteps, average = result["timesteps"], result["average_timesteps"]
    if result.get("network") == "ANN":
        return f"The ordinary network, run once: {right}"
    if timesteps == 1:
        return f"One timestep, {right}"
    if average >= timesteps:
        return f"All {timesteps} timesteps, {right}"
    if timesteps / average < 1.05:
        return f"{100 * (1 - average / timesteps):.2g} % fewer timesteps, {right}"
    return f"{timesteps / average:.1f} times fewer timesteps, {right}"


def in_figures(result: dict[str, Any]) -> str:
    """Accuracy and timesteps."""
    average = f"{result['average_timesteps']:.3f}"
    return f"accuracy {percent(result['accuracy'])} at {average} timesteps on average"


def choice(result: dict[str, Any]) -> str:
    """How the value of the exit was chosen."""
    if result["threshold"] is None:
        return "no threshold: every sample runs all timesteps"
    if result["policy"]:
        return (
            f"price of a timestep {result['threshold']:.6g} nats, {result['threshold_rule']}; "
            f"{_policy_words(result['policy'])}"
        )
    return f"{result['exit']} threshold {result['threshold']:.6g}, {result['threshold_rule']}"


def _policy_words(policy: dict[str, Any]) -> str:
    cost = policy["macs"] / policy["network_macs"]
    text = (
        f"candidates {', '.join(map(str, policy['candidates']))}, beta {policy['beta']:g}, policy "
        f"network {policy['macs'] / 1e6:.2f} MMAC ({percent(cost)} of one dense timestep)"
    )
    if policy["collapsed_to"] is not None:
        text += f"; the policy has collapsed: t = {policy['collapsed_to']} for every sample"
    return text


def beside(result: dict[str, Any]) -> str:
    """SEENN-I at the same average timesteps, next to SEENN-II."""
    other, replayed = result["policy"]["confidence"], result["replayed_accuracy"]
    return (
        f"SEENN-I (confidence {other['threshold']:.6g}) on the same network, replayed from the "
        f"answers of all ticks at once: {percent(other['accuracy'])} at "
        f"{other['average_timesteps']:.3f} timesteps; the policy replayed likewise: "
        f"{percent(replayed)}, {100 * (replayed - other['accuracy']):+.2f} points from it"
    )


def guarantee_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What was certified, on what, and how it came out on the split that is reported."""
    found = result["guarantee"]
    return [
        ("loss", found["loss"]),
        ("largest risk eps", f"{found['eps']:g}"),
        ("delta", f"{found['delta']:g}"),
        ("calibration samples n", f"{found['n']:,}"),
        ("threshold", f"{found['threshold']:.6f}"),
        ("average timesteps on them", f"{found['average_timesteps']:.3f}"),
        ("risk on them", f"{found['empirical_risk']:.5f}"),
        ("p-value", f"{found['p_value']:.3g}"),
        ("certified", "yes" if found["certified"] else "no: all T run"),
        (f"risk on the {result['split']} split", f"{found['reported_risk']:.5f}"),
    ]


def timestep_rows(result: dict[str, Any]) -> list[tuple[int, float, float]]:
    """The table by timestep: (t, static accuracy, share of exits) for t = 1..T."""
    return [
        (t, accuracy, share)
        for t, (accuracy, share) in enumerate(
            zip(result["static_accuracy"], result["exit_shares"], strict=True), start=1
        )
    ]


def conversion_tables(reports: list[dict[str, Any]]) -> list[tuple[str, list[list[str]]]]:
    """(heading, rows) of each table; the first row of a table names its columns."""
    first = reports[0]
    # Short enough for 80 columns.
    start, *later = first["timesteps"]
    ticks = [f"t = {start}", *map(str, later)]
    accuracy = [["run", "activation", "ANN", *ticks]]
    for report in reports:
        levels = report["quantization_levels"]
        kind = report["activation"] + (f", L {levels}" if levels else "")
        figures = (f"{100 * x:.2f}" for x in [report["ann_accuracy"], *report["accuracy"]])
        accuracy.append([report["workdir"], kind, *figures])
    of = f"{first['dataset']}, {first['split']} split"
    tables = [(f"Accuracy in % once converted, {of}", accuracy)]
    if len(reports) == 1:
        layers = [["layer", "threshold", *ticks]]
        for layer in first["layers"]:
            errors = [f"{error:.4f}" for error in layer["error"]]
            layers.append([layer["place"], f"{layer['threshold']:.3f}", *errors])
        tables.append(("Mean absolute error of a layer's average output", layers))
    return tables


def energy_rows(result: dict[str, Any]) -> list[list[str]]:
    """The bills of an image: names, then at its exit, at each t for everyone, and as an ANN."""
    found = result["energy"]
    bills = [("at the exit", found["at_exit"])]
    bills += [(f"t = {t}", bill) for t, bill in enumerate(found["by_timestep"], start=1)]
    bills.append(("as an ANN", found["ann"]))
    rows = [["per image", "synaptic operations", "MACs", "energy", "stem each timestep"]]
    for name, bill in bills:
        again = bill.get("picojoules_stem_each_timestep")
        rows.append(
            [
                name,
                _millions(bill["synaptic_operations"]) if "synaptic_operations" in bill else "",
                _millions(bill["macs"]),
                _joules(bill["picojoules"]),
                "" if again is None else _joules(again),
            ]
        )
    return rows


def memory_rows(result: dict[str, Any]) -> list[list[str]]:
    """What moving data costs an image, beside its arithmetic."""
    energy = result["energy"]
    found = energy["memory"]
    bills = [("at the exit", found["at_exit"], energy["at_exit"])]
    steps = zip(found["by_timestep"], energy["by_timestep"], strict=True)
    bills += [(f"t = {t}", moved, spent) for t, (moved, spent) in enumerate(steps, start=1)]
    bills.append(("as an ANN", found["ann"], energy["ann"]))
    return [
        ["per image", "on the chip", "from DRAM", "moving", "with arithmetic"],
        *(
            [
                name,
                _kilobytes(moved["chip"]),
                _kilobytes(moved["dram"]),
                _joules(moved["picojoules"]),
                _joules(moved["picojoules"] + spent["picojoules"]),
            ]
            for name, moved, spent in bills
        ),
    ]


def layer_rows(result: dict[str, Any]) -> list[list[str]]:
    """What each layer costs."""
    return [
        ["layer", "receives", "dense MACs", "operations per image"],
        *(
            [
                layer["place"],
                layer["receives"],
                _millions(layer["macs"]),
                f"{_millions(layer['operations'])} {kind}",
            ]
            for layer in result["energy"]["layers"]
            for kind in ("AC" if layer["receives"] == "spikes" else "MAC",)
        ),
    ]


def rates(result: dict[str, Any]) -> str:
    """How many neurons fire."""
    found = result["energy"]["rates"]
    low, high = (choose(found, key=lambda layer: layer["rate"]) for choose in (min, max))
    text = (
        f"Of its neurons {percent(low['rate'])} ({low['place']}) to {percent(high['rate'])} "
        f"({high['place']}) fire in a timestep"
    )
    policy = result["energy"]["policy_macs"]
    return f"{text}; with {_millions(policy)} MACs of the policy at the exit" if policy else text


def _millions(count: int | float) -> str:
    return f"{count / 1e6:,.3f} M"


def _kilobytes(count: float) -> str:
    return f"{count / 1e3:,.1f} kB"


def _joules(picojoules: int | float) -> str:
    if picojoules < 1e9:
        return f"{picojoules / 1e3:,.1f} nJ"
    return f"{picojoules / 1e9:,.3f} mJ"


def by_timesteps(sweep: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A sweep in the order of its average timesteps."""
    return sorted(sweep, key=lambda row: (row["average_timesteps"], row["threshold"]))


def thin(sweep: list[dict[str, Any]], rows: int = 9) -> list[dict[str, Any]]:
    """At most `rows` rows of `sweep`, spread evenly over the average timesteps, ends included."""
    ordered = by_timesteps(sweep)
    if len(ordered) <= rows:
        return ordered
    first, last = ordered[0]["average_timesteps"], ordered[-1]["average_timesteps"]
    kept = []
    for i in range(rows):
        target = first + (last - first) * i / (rows - 1)
        nearest = min(ordered, key=lambda row: abs(row["average_timesteps"] - target))
        if nearest not in kept:
            kept.append(nearest)
    return kept


def with_chosen(result: dict[str, Any], sweep: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`sweep` by average timesteps, with the threshold that was used among its rows."""
    chosen = {key: result[key] for key in ("threshold", "accuracy", "average_timesteps")}
    counts = [round(share * result["num_samples"]) for share in result["exit_shares"]]
    others = [row for row in sweep if row["threshold"] != chosen["threshold"]]
    return by_timesteps([*others, chosen | {"exit_counts": counts}])
