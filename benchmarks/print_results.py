"""Prints the pages of results, and tables of other pages, from the records of results/.

    python benchmarks/print_results.py            # writes all
    python benchmarks/print_results.py --check    # exits with 1 where a file differs

No figure of this project stands in this code: what it prints comes from records, or is computed
from them.
"""

import argparse
import sys
from pathlib import Path

import results_accuracy as accuracy
import results_cifar as cifar
import results_interop as interop
import results_reliability as reliability
import results_serving as serving
import results_speed as speed
import results_tried as tried
from tables import all_of, count, mean, minutes, paragraph, percent, span, table

from seenn_jax.errors import UserError

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
INTRODUCTION = """# Results

Every figure is printed from a record of `results/` by `benchmarks/print_results.py`. Under each
table stand the commands, as they were typed at their revision, and the machine; some flags have
other names since, which the list of changes (CHANGELOG.md) has."""
SECTIONS = (
    accuracy.digits,
    cifar.taught,
    cifar.policies,
    cifar.guaranteed,
    cifar.converted,
    cifar.neurons,
    cifar.networks,
    cifar.gradients,
    accuracy.policy,
    accuracy.events,
    accuracy.events_of_images,
    accuracy.energy,
    accuracy.joules,
    speed.early_exit,
    speed.cpu_peers,
    speed.training_step,
    speed.scaling,
    speed.deterministic,
    speed.imagenet,
    speed.host_pipeline,
    speed.tpu,
    speed.one_answer,
    serving.serving,
)


def page() -> str:
    """What docs/results.md holds."""
    return "\n\n".join([INTRODUCTION, *(section() for section in SECTIONS)]) + "\n"


PAGES = {
    "results.md": page,
    "ablations.md": tried.ablations,
    "reliability.md": reliability.page,
}


def filled(name: str, text: str) -> str:
    """A file of `BLOCKS` with what stands between the marks in it.

    Raises:
      UserError: it has no place for that.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(
            f"{name} has not one line {BEGIN.strip()} and one {END.strip()}: the table stands "
            "between them; put them in"
        )
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{BLOCKS[name]()}\n{END}{rest.split(END)[1]}"


def headline() -> str:
    """The table of README.md."""
    [digits] = all_of("digits")
    rows = [["digits, SEENN-I, T = 4", *_reached([digits["figures"]])]]
    for data, timesteps, how, target in cifar.HEADLINES:
        runs = cifar.taught_rows(data, timesteps, how, target)
        seeds = f"mean of {len(runs)} seeds" if len(runs) > 1 else "one seed"
        rows.append([f"{data}, SEENN-I, T = {timesteps}, taught, {seeds}", *_reached(runs)])
    rows += [_chosen_beforehand(), _with_a_guarantee(), _converted()]
    [i2e] = all_of("i2e")
    rows.append(
        ["I2E-CIFAR10, SEENN-I, T = 8, MS-ResNet-18, one seed", *_reached([i2e["figures"]])]
    )
    rows += [_images_per_second(), _answers_that_differ()]
    header = ["accuracy in %, of the test split", "early exit", "timesteps on average", "all T"]
    return f"{_flagship()}\n\n{table(header, rows)}"


def _chosen_beforehand() -> list[str]:
    """SEENN-II on CIFAR-10."""
    record = next(r for r in all_of("cifar_policy") if "CIFAR-10:" in r["what"])
    runs = [row for row in record["figures"]["rows"] if row["target"] == 1.09]
    return [f"CIFAR-10, SEENN-II, T = 2, mean of {len(runs)} seeds", *_reached(runs)]


def _with_a_guarantee() -> list[str]:
    """A threshold by Learn-then-Test."""
    runs = all_of("cifar_guarantee")[0]["figures"]["rows"]
    risk, sure = runs[0]["eps"], 1 - runs[0]["delta"]
    what = f"CIFAR-10, T = 2, at most {100 * risk:g} % other answers, with probability {sure:g}"
    return [what, *_reached(runs)]


def _converted() -> list[str]:
    """A converted ResNet-18."""
    runs = cifar.converted_rows(1.4)
    what = f"CIFAR-10, converted ResNet-18, T = 8, taught, mean of {len(runs)} seeds"
    return [what, *_reached(runs)]


def _flagship() -> str:
    """The figure to be known for, in a sentence, beside the paper's."""
    runs = cifar.taught_rows(*cifar.HEADLINES[0])
    [device] = {r["device"] for r in all_of("cifar_taught")}
    return paragraph(
        f"**ResNet-19 on CIFAR-10: {percent(mean(run['accuracy'] for run in runs))} % at "
        f"{mean(run['average_timesteps'] for run in runs):.2f} timesteps on average** "
        f"({span(run['accuracy'] for run in runs)}, {len(runs)} seeds; SEENN's paper, table 1: "
        f"96.07 % at 1.09), trained in {minutes(max(run['seconds'] for run in runs))} on {device}."
    )


def _reached(runs: list[dict]) -> list[str]:
    """Mean accuracy, its timesteps, and the accuracy of all T, in slots where all were run so."""
    whole = [run.get("all_timesteps_accuracy") for run in runs]
    if None in whole:
        whole = [run["static_accuracy"][-1] for run in runs]
    return [
        percent(mean(run["accuracy"] for run in runs)),
        f"{mean(run['average_timesteps'] for run in runs):.3f}",
        percent(mean(whole)),
    ]


def _images_per_second() -> list[str]:
    """The fastest slots beside all ticks at once."""
    record = all_of("early_exit_h200")[0]
    rows = record["figures"]["rows"]
    slots, full = (
        max((r for r in rows if r["method"] == method), key=lambda r: r["images_per_second"])
        for method in ("slots", "full")
    )
    return [
        f"ResNet-19, T = {record['figures']['timesteps']}, images/s ({record['device']})",
        count(slots["images_per_second"]),
        f"{slots['average_timesteps']:.3f}",
        count(full["images_per_second"]),
    ]


def _answers_that_differ() -> list[str]:
    """The most of any record, by dtype, since inference has one arithmetic."""
    records = [r for r in all_of("one_answer") if "before" not in r["what"]]
    rows = [row for record in records for row in record["figures"]["rows"]]
    most = {}
    for row in rows:
        most[row["dtype"]] = max(most.get(row["dtype"], 0), row["answers_that_differ"])
    samples = count(records[0]["figures"]["samples"])
    found = ", ".join(f"{number} in {dtype}" for dtype, number in most.items())
    return [f"answers that another program gives otherwise, of {samples}", found, "", ""]


BLOCKS = {"README.md": headline, "docs/interop.md": interop.block}


def main() -> int:
    """Write the files, or say which is not as it would be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    wanted = {ROOT / name: filled(name, (ROOT / name).read_text()) for name in BLOCKS}
    wanted |= {ROOT / "docs" / name: printed() for name, printed in PAGES.items()}
    differ = [p for p, text in wanted.items() if not p.is_file() or p.read_text() != text]
    for path in differ:
        if check:
            name = path.relative_to(ROOT)
            print(f"{name} is not what results/ gives: python benchmarks/print_results.py mends it")
        else:
            path.write_text(wanted[path])
    return int(check and bool(differ))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"print_results.py: {error}")
