"""SEENN-II at several beta beside SEENN-I and the oracle: figures and a picture.

    python benchmarks/sweep_beta.py --config=configs/cifar10_policy.py --init_from=runs/cifar10_t2

Trains a policy for each beta and seed (its run is OUT/beta_B_seed_S; one that is done is not
trained again), evaluates each on the test split at its own choice and, with the price of a
timestep chosen on the validation split, at --target timesteps on average, and compares it with
SEENN-I at equal average timesteps. Writes OUT/sweep.json and OUT/sweep.png.
"""

import json
import time
from pathlib import Path

from absl import flags
from matplotlib.figure import Figure
from ml_collections import config_flags
from rich.console import Console

from seenn_jax import cli, provenance
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluator import Choice, evaluate
from seenn_jax.training.policy import train_policy

CONFIG = config_flags.DEFINE_config_file("config", "configs/cifar10_policy.py", "A policy's.")
INIT_FROM = flags.DEFINE_string("init_from", "runs/cifar10_t2", "Run of the spiking network.")
BETAS = flags.DEFINE_list("betas", ["0.03", "0.1", "0.3", "1"], "Penalties of a wrong answer.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Of the policies.")
TARGET = flags.DEFINE_float("target", 1.2, "Average timesteps to compare at, on validation.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Slots. Default: evaluate.py's.")
OUT = flags.DEFINE_string("out", "runs/sweep_beta", "Folder of the runs and results.")


def numbers(flag: flags.FlagHolder, kind: type) -> list:
    """The numbers of a flag's list.

    Raises:
      UserError: something else is there, or nothing.
    """
    try:
        return [kind(value) for value in flag.value or [""]]
    except ValueError as error:
        raise UserError(
            f"--{flag.name} is {','.join(flag.value)!r}: it must be numbers separated by commas, "
            f"as in --{flag.name}={','.join(flag.default)}; set it to such"
        ) from error


def one(beta: float, seed: int, console: Console) -> dict:
    """Train and evaluate one policy."""
    config = CONFIG.value.copy_and_resolve_references()
    config.init_from, config.seed, config.policy.beta = INIT_FROM.value, seed, beta
    workdir = Path(OUT.value) / f"beta_{beta:g}_seed_{seed}"
    started = time.perf_counter()
    train_policy(config, workdir, console)
    seconds = time.perf_counter() - started
    found = {"beta": beta, "seed": seed, "training_seconds": seconds}
    reported = ("accuracy", "replayed_accuracy", "average_timesteps", "exit_shares")
    choices = {"own": Choice(), "target": Choice(target_timesteps=TARGET.value)}
    for name, choice in choices.items():
        result = evaluate(workdir, exit="policy", choice=choice, batch_size=BATCH_SIZE.value)
        confidence = result["policy"]["confidence"]
        found[name] = {
            **{key: result[key] for key in reported},
            "price": result["threshold"],
            "images_per_second": result["images_per_second"],
            "collapsed_to": result["policy"]["collapsed_to"],
            "confidence_accuracy": confidence["accuracy"],
            "confidence_timesteps": confidence["average_timesteps"],
        }
        print(
            f"beta {beta:<5g} seed {seed} {name:6}: {result['accuracy']:.2%} (replayed "
            f"{result['replayed_accuracy']:.2%}) at "
            f"{result['average_timesteps']:.3f}; SEENN-I {confidence['accuracy']:.2%} at "
            f"{confidence['average_timesteps']:.3f}; all T {result['static_accuracy'][-1]:.2%}; "
            f"{result['images_per_second']:,.0f} images/s",
            flush=True,
        )
    shared = ("static_accuracy", "oracle_aet", "oracle_accuracy", "timesteps", "num_samples")
    found |= {key: result[key] for key in shared}
    found["confidence_sweep"] = confidence["sweep"]
    found["price_sweep"] = result["sweep"]
    return found


def draw(rows: list[dict], path: Path) -> None:
    """Accuracy against average timesteps of all policies, of SEENN-I and of the oracle."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for key, label, color in (
        ("confidence_sweep", "SEENN-I (confidence)", "#0072b2"),
        ("price_sweep", f"SEENN-II, prices, beta {rows[0]['beta']:g}", "#d55e00"),
    ):
        points = sorted((p["average_timesteps"], 100 * p["accuracy"]) for p in rows[0][key])
        axes.plot(*zip(*points, strict=True), color=color, label=label)
    for row in rows:
        own = row["own"]
        axes.plot(own["average_timesteps"], 100 * own["accuracy"], "o", color="#d55e00")
        axes.annotate(
            f"{row['beta']:g}",
            (own["average_timesteps"], 100 * own["accuracy"]),
            (3, -10),
            textcoords="offset points",
            fontsize=8,
        )
    static = rows[0]["static_accuracy"]
    axes.plot(
        range(1, len(static) + 1),
        [100 * a for a in static],
        "s",
        color="#7a5200",
        label="all run t timesteps",
    )
    axes.plot(
        rows[0]["oracle_aet"],
        100 * rows[0]["oracle_accuracy"],
        "*",
        markersize=12,
        color="#00795a",
        label="oracle",
    )
    axes.set(xlabel="average timesteps", ylabel="test accuracy (%)")
    axes.legend(frameon=False, title="points: SEENN-II's own choice, with its beta")
    figure.savefig(path, dpi=160)


def main() -> None:
    """Run the sweep, a line for each evaluation as it comes."""
    out = Path(OUT.value)
    console = Console(markup=False, soft_wrap=True)
    betas, seeds = numbers(BETAS, float), numbers(SEEDS, int)
    rows = [one(beta, seed, console) for beta in betas for seed in seeds]
    result = {
        "init_from": INIT_FROM.value,
        "config": CONFIG.value.to_dict(),
        "rows": rows,
        "revision": provenance.revision(),
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    (out / "sweep.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, out / "sweep.png")


if __name__ == "__main__":
    cli.main(main, "interrupted: the same command continues with the policies that are not done")
