"""SEENN-II at several beta beside SEENN-I and the oracle: figures and a picture.

    python benchmarks/sweep_beta.py --config=configs/cifar10_policy.py --init_from=runs/cifar10_t2

Trains a policy for each beta and seed (its run is OUT/beta_B_seed_S; one that is done is not
trained again), evaluates each on the test split at its own choice and, with the price of a
timestep chosen on the validation split, at --target timesteps on average, and compares it with
SEENN-I at equal average timesteps. Draws OUT/sweep.png.
"""

import time
from pathlib import Path

import records
from absl import flags
from matplotlib.figure import Figure
from ml_collections import config_flags
from rich.console import Console

from seenn_jax.cli.flags import Flag
from seenn_jax.cli.main import main as run_program
from seenn_jax.cli.overrides import load_config
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluate import evaluate
from seenn_jax.exits import Target
from seenn_jax.training import train

_GROUP = "The sweep"
FLAGS = {
    "init_from": Flag(
        flags.DEFINE_string, _GROUP, "DIR", "run of the spiking network", "runs/cifar10_t2"
    ),
    "betas": Flag(
        flags.DEFINE_list, _GROUP, "X,X", "penalties of a wrong answer", ["0.03", "0.1", "0.3", "1"]
    ),
    "seeds": Flag(flags.DEFINE_list, _GROUP, "N,N", "of the policies", ["0"]),
    "target": Flag(
        flags.DEFINE_float, _GROUP, "X", "average timesteps to compare at, on validation", 1.2
    ),
    "slots": Flag(flags.DEFINE_integer, _GROUP, "N", "images under way, as of evaluate.py"),
    "out": Flag(
        flags.DEFINE_string, _GROUP, "DIR", "of the runs and the picture", "runs/sweep_beta"
    ),
    "json": Flag(flags.DEFINE_string, _GROUP, "FILE", "add the record to it; else OUT/sweep.json"),
}
CURVES = ("confidence_sweep", "price_sweep")


def value_of(flag: str):
    """What a flag is set to."""
    return flags.FLAGS[flag].value


def numbers(flag: str, kind: type) -> list:
    """The numbers of a flag's list.

    Raises:
      UserError: something else is there, or nothing.
    """
    given = value_of(flag)
    try:
        return [kind(value) for value in given or [""]]
    except ValueError as error:
        raise UserError(
            f"--{flag} is {','.join(given)!r}: it must be numbers separated by commas, "
            f"as in --{flag}={','.join(FLAGS[flag].default)}; set it to such"
        ) from error


def one(beta: float, seed: int, console: Console) -> dict:
    """Train and evaluate one policy: a row, with the curves of `CURVES`."""
    config = value_of("config").copy_and_resolve_references()
    config.init_from, config.seed, config.policy.beta = value_of("init_from"), seed, beta
    workdir = Path(value_of("out")) / f"beta_{beta:g}_seed_{seed}"
    started = time.perf_counter()
    train(config, workdir, console)
    found = {"beta": beta, "seed": seed, "training_seconds": time.perf_counter() - started}
    for prefix, choice in (("own_", None), ("", Target(value_of("target")))):
        result = evaluate(workdir, exit="policy", choice=choice, slots=value_of("slots"))
        confidence = result["policy"]["confidence"]
        row = {
            "accuracy": result["accuracy"],
            "replayed_accuracy": result["replayed_accuracy"],
            "average_timesteps": result["average_timesteps"],
            "exit_shares": result["exit_shares"],
            "price": result["threshold"],
            "images_per_second": result["images_per_second"],
            "collapsed_to": result["policy"]["collapsed_to"],
            "confidence_accuracy": confidence["accuracy"],
            "confidence_timesteps": confidence["average_timesteps"],
        }
        found |= {prefix + name: value for name, value in row.items()}
        print(
            f"beta {beta:<5g} seed {seed} {'own' if prefix else 'target':6}: "
            f"{result['accuracy']:.2%} (replayed {result['replayed_accuracy']:.2%}) at "
            f"{result['average_timesteps']:.3f}; SEENN-I {confidence['accuracy']:.2%} at "
            f"{confidence['average_timesteps']:.3f}; all T {result['static_accuracy'][-1]:.2%}; "
            f"{result['images_per_second']:,.0f} images/s",
            flush=True,
        )
    shared = ("static_accuracy", "oracle_aet", "oracle_accuracy", "timesteps", "num_samples")
    found |= {key: result[key] for key in shared}
    return found | dict(zip(CURVES, (confidence["sweep"], result["sweep"]), strict=True))


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
        point = (row["own_average_timesteps"], 100 * row["own_accuracy"])
        axes.plot(*point, "o", color="#d55e00")
        axes.annotate(f"{row['beta']:g}", point, (3, -10), textcoords="offset points", fontsize=8)
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


def written(rows: list[dict]) -> None:
    """Add the record, and the curves as its sweep."""
    config, out = value_of("config"), Path(value_of("out"))
    base = load_config(config_flags.get_config_filename(flags.FLAGS["config"]))
    model = config.model
    seeds = {row["seed"] for row in rows}
    record = records.record(
        f"SEENN-II at several beta: {model.name}, width {model.width}, {config.data.name}",
        {"rows": [{k: v for k, v in row.items() if k not in CURVES} for row in rows]},
        config=records.differing(config, base),
        seed=seeds.pop() if len(seeds) == 1 else None,
        note=f"own_: the policy's own choice; the rest: the price for {value_of('target'):g} "
        "timesteps on validation",
    )
    points = [
        {
            "beta": row["beta"],
            "seed": row["seed"],
            "curve": curve.removesuffix("_sweep"),
            "average_timesteps": point["average_timesteps"],
            "accuracy": point["accuracy"],
        }
        for row in rows
        for curve in CURVES
        for point in row[curve]
    ]
    records.add(value_of("json") or out / "sweep.json", record, points)


def sweep() -> None:
    """Run the sweep, a line for each evaluation as it comes."""
    if value_of("config") is None:
        raise UserError("--config is missing: for example --config=configs/cifar10_policy.py")
    console = Console(markup=False, soft_wrap=True)
    betas, seeds = numbers("betas", float), numbers("seeds", int)
    rows = [one(beta, seed, console) for beta in betas for seed in seeds]
    written(rows)
    draw(rows, Path(value_of("out")) / "sweep.png")


if __name__ == "__main__":
    run_program(
        sweep,
        FLAGS,
        config="A policy's experiment, a file of configs/.",
        interrupted="interrupted: the same command continues with the policies that are not done",
    )
