"""Weights: one .safetensors file with all that `load` needs, and files of them by name.

The tensors (`tensors.py`) are those of the network, after "network."; of a policy's run also those
of the policy, after "policy.". The file's metadata are JSON: the config, facts of the data with the
names of the classes, the exit with its value, thresholds of ReLUs, and where it all comes from.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax.config import is_policy
from seenn_jax.errors import UserError, check_choice
from seenn_jax.paths import check_new, put, shipped
from seenn_jax.plugins import load_plugins
from seenn_jax.run import build, folder
from seenn_jax.run.tensors import DTYPES, Tensors, of_model, rounded, to_model, widened
from seenn_jax.run.trained import Trained, of_run

SUFFIX = ".safetensors"
FORMAT = "seenn_jax 1"
INDEX = "index.json"  # of a folder: {name: {"file", "sha256"}}


# --- Finding ---------------------------------------------------------------------------------


def opened(source: str | Path | Trained, checkpoint: int | None = None) -> Trained:
    """A run by its folder, or weights by their name or a path that ends in .safetensors.

    Args:
      checkpoint: of a run, the step of one; None is the best.

    Raises:
      UserError: as `of_run` and `read`; a checkpoint of weights.
    """
    trained = source if isinstance(source, Trained) else _opened(source, checkpoint)
    if checkpoint is not None and trained.setting != "workdir":
        raise UserError(
            f"`checkpoint`={checkpoint} is of a run, and {trained.place} has one network: leave it "
            "out"
        )
    return trained


def _opened(source: str | Path, checkpoint: int | None) -> Trained:
    is_run = (Path(source) / folder.FILE).is_file()
    if not is_run and (str(source).endswith(SUFFIX) or str(source) in names()):
        return read(source)
    return of_run(Path(source), checkpoint)


def names() -> dict[str, dict[str, str]]:
    """The weights that come with the package, by name: {"file", "sha256"}."""
    return _index(shipped("weights"))


def _index(where: Path) -> dict[str, dict[str, str]]:
    index = where / INDEX
    return json.loads(index.read_text()) if index.is_file() else {}


def _found(source: str | Path) -> tuple[Path, str]:
    """(path, SHA-256) of weights by name or path."""
    by_name, name, path = names(), str(source), Path(source)
    if (path / folder.FILE).is_file():
        raise UserError(f"`weights`={name} is a run: give it as `workdir`={name}")
    if not name.endswith(SUFFIX):
        check_choice("weights", name, [*by_name, f"a path that ends in {SUFFIX}"])
        path = shipped("weights") / by_name[name]["file"]
    try:
        sha256 = _sha256(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"the weights {path} can't be read ({error.strerror}): give the path of a file, or one "
            f"of the names {', '.join(by_name)}"
        ) from error
    wanted = by_name.get(name, {}).get("sha256")
    if wanted and sha256 != wanted:
        raise UserError(
            f"{path} is not the file that {name!r} stands for: its SHA-256 is {sha256} "
            f"and must be {wanted}; get it again"
        )
    return path, sha256


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- Reading ---------------------------------------------------------------------------------


def read(source: str | Path) -> Trained:
    """A trained network from weights, by name or path; its plugins are loaded.

    Raises:
      UserError: there are no such weights, they are damaged or of another kind or architecture, a
        plugin is gone.
    """
    path, sha256 = _found(source)
    about, tensors = _parsed(path)
    try:
        config, facts = folder.config_of(about), folder.facts_of(about)
        origin, exit, thresholds = about["origin"], about["exit"], about["thresholds"]
        step = origin["checkpoint_step"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} has metadata that can't be read ({type(error).__name__}: {error}): get it "
            "again, or use the version that wrote it"
        ) from error
    load_plugins(config.plugins, origin.get("plugins"))

    def part(make, prefix):
        its = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        # Shapes only: drawing parameters would take longer than reading them.
        return to_model(nnx.eval_shape(make), its, str(path))

    return Trained(
        path,
        "weights",
        config,
        facts,
        network=lambda config: (part(lambda: build.network(config, facts), "network."), step),
        policy=lambda config: part(lambda: build.policy(config, facts), "policy."),
        exit=lambda: exit,
        about={**origin, "sha256": sha256},
        thresholds=thresholds,
    )


def _parsed(path: Path) -> tuple[dict[str, Any], Tensors]:
    """(metadata, tensors in float32) of a file."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if texts.get("format") != FORMAT:
            raise ValueError(f"its format is {texts.get('format')!r}, and {FORMAT!r} can be read")
        about = {key: json.loads(text) for key, text in texts.items() if key != "format"}
        return about, widened(tensors)
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise UserError(
            f"{path} is no whole file of weights ({error}): get it again, or give one that "
            "evaluate.py --export_weights wrote"
        ) from error


# --- Writing ---------------------------------------------------------------------------------


def check_path(path: Path) -> None:
    """Raise a UserError for a path that `export_weights` refuses."""
    if path.suffix != SUFFIX:
        raise UserError(f"`export_weights`={path} must end in {SUFFIX}: give such a path")
    for each in (path, path.with_suffix(".md")):
        check_new("export_weights", each)


def in_dtype(trained: Trained, dtype: str) -> Trained:
    """The same network, as it comes back from weights whose kernels are in a dtype.

    Raises:
      UserError: no such dtype.
    """
    check_choice("`weights_dtype`", dtype, DTYPES)
    if dtype == "float32":
        return trained

    def network(config):
        model, step = trained.network(config)
        return rounded(model, dtype), step

    return trained._replace(
        network=network,
        policy=lambda config: rounded(trained.policy(config), dtype),
        thresholds=None,  # of other activations
    )


def export_weights(
    path: str | Path, predictor: Any, *, dtype: str = "float32", exit: dict | None = None
) -> str:
    """Write a loaded run to one file, which `load` takes like the run.

    Args:
      path: of a new file, which ends in .safetensors.
      predictor: a `Predictor`, loaded without `ann`.
      dtype: of the kernels that meet spikes: "float32", "bfloat16", or "int8" with a scale per
        output channel. All else is float32.
      exit: what `folder.keep_exit` keeps; None is the run's own.

    Returns:
      the SHA-256 of the file.

    Raises:
      UserError: the file exists or can't be written, an unknown dtype, a network that was loaded
        as the ANN that it is trained as.
    """
    path, trained = Path(path), predictor.trained
    check_choice("`weights_dtype`", dtype, DTYPES)
    check_path(path)
    if predictor.kind == "ANN":
        raise UserError(
            "weights are written of the spiking network, and this run is loaded as the ANN that it "
            "was converted from: load it without `ann`; the weights have both"
        )
    model, step = trained.network(trained.config)
    parts = {"network.": model}
    if is_policy(trained.config):
        parts["policy."] = trained.policy(trained.config)
    tensors = {
        prefix + name: tensor
        for prefix, part in parts.items()
        for name, tensor in of_model(part, dtype).items()
    }
    origin = local({k: v for k, v in trained.about.items() if k != "sha256"})
    about = {
        "config": _portable(trained.config),
        "data": trained.facts._asdict(),
        "exit": trained.exit() if exit is None else {name: exit[name] for name in folder.KEPT},
        "thresholds": predictor.thresholds,
        "origin": {**origin, "checkpoint_step": step},
    }
    texts = {"format": FORMAT, **{key: json.dumps(value) for key, value in about.items()}}
    content = safetensors.numpy.save(tensors, metadata=texts)
    put(path, content)
    sha256 = _sha256(content)
    if (path.parent / INDEX).is_file():
        row = {path.stem: {"file": path.name, "sha256": sha256}}
        index = dict(sorted((_index(path.parent) | row).items()))
        put(path.parent / INDEX, (json.dumps(index, indent=2) + "\n").encode())
    return sha256


def _portable(config: ConfigDict) -> dict:
    """A config without the paths of this machine."""
    settings = local(config.to_dict())
    settings["data"]["dir"] = ""
    return settings


def local(value: Any) -> Any:
    """The same, with the last part alone of paths of this machine."""
    if isinstance(value, dict):
        return {local(key): local(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [local(each) for each in value]
    if not isinstance(value, str) or "/" not in value:
        return value
    kind, colon, path = value.rpartition(":")
    absolute = Path(path).expanduser().is_absolute()
    return f"{kind}{colon}{Path(path).name}" if absolute else value
