"""The card of a file of weights: what it is, how it came to be, and what it can do."""

from typing import Any

from seenn_jax.config import default_config
from seenn_jax.report.words import choice, in_figures, percent, plural, timestep_rows
from seenn_jax.run.folder import flat
from seenn_jax.run.weights import local

_CIFAR = (
    "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, "
    "https://www.cs.toronto.edu/~kriz/cifar.html, which names no licence and asks to cite that "
    "report; the images were collected on the web"
)
# Where data come from, and on what terms, by the name of the data set; as far as known.
DATA = {
    "digits": "scikit-learn's copy of the test set of Optical Recognition of Handwritten Digits "
    "(E. Alpaydin, C. Kaynak, 1998; UCI Machine Learning Repository, "
    "https://archive.ics.uci.edu/dataset/80, CC BY 4.0), scaled from 0..16 to 0..255",
    "cifar10": f"CIFAR-10 ({_CIFAR})",
    "cifar100": f"CIFAR-100 ({_CIFAR})",
    "imagenet2012": "ImageNet (ILSVRC 2012, https://image-net.org, whose terms of access allow "
    "non-commercial research and education alone)",
}
DATA["digits_dvs"] = f"{DATA['digits']}, before a simulated event camera"
DATA["cifar10_dvs"] = (
    "CIFAR10-DVS (H. Li et al., Frontiers in Neuroscience 11:309, 2017; its licence is that of its "
    f"page on figshare), recorded of images of {DATA['cifar10']}"
)
DATA["tiny_imagenet"] = "Tiny ImageNet (Stanford CS231N), of images of ImageNet (ILSVRC 2012)"
DATA["dvs128_gesture"] = "DVS128 Gesture (Amir et al., CVPR 2017)"
DATA["n_mnist"] = (
    "N-MNIST (Orchard et al., Frontiers in Neuroscience 9:437, 2015), recorded of images of MNIST"
)
DATA["n_caltech101"] = (
    "N-Caltech101 (Orchard et al., Frontiers in Neuroscience 9:437, 2015), recorded of "
    "images of Caltech 101"
)
DATA["shd"] = DATA["ssc"] = "the Heidelberg spiking data sets (Cramer et al., IEEE TNNLS, 2022)"


def card(
    result: dict[str, Any],
    *,
    name: str,
    config: dict[str, Any],
    origin: dict[str, Any],
    dtype: str,
    sha256: str,
) -> str:
    """The card in Markdown.

    Args:
      result: of evaluating these very weights, as for `report.files.write_report`.
      name: of the file.
      config: of the training, as it is in the file.
      origin: revision, versions and device of the training.
      dtype: of the kernels, as for `run.weights.export_weights`.
      sha256: of the file.
    """
    note = f" {result['dataset_note']}." if result["dataset_note"] else ""
    dataset = local(result["dataset"])
    unknown = f"{dataset}: its source and licence are not known here"
    data = DATA.get(dataset.partition(":")[0], unknown)  # without a version
    versions = ", ".join(f"{what} {version}" for what, version in origin["versions"].items())
    return f"""# {name}

A {result["network"]} network, {config["model"]["name"]} of width {config["model"]["width"]}, \
trained on {dataset}, T = {result["timesteps"]}. Kernels are stored in {dtype}.
`seenn_jax.load` and `--weights` of evaluate and predict take it; `--config.init_weights` of train
starts from it.

## What it can do

On the {result["split"]} split ({plural(result["num_samples"], "image")}), with these very weights
and inference in {result["precision"]}: {in_figures(result)};
{choice(result)}.

| timestep | static accuracy | share of exits |
|---:|---:|---:|
{_rows(result)}

## Data

{data}.{note}

## How it came to be

Seed {config["seed"]}, step {result["checkpoint_step"]:,} ({_which(config["data"])}), \
revision {origin["revision"]}, {origin["device"]}, {versions}.
`train.py` with these settings, the others as in `seenn_jax/config.py`:

```text
{_settings(config)}
```

SHA-256: `{sha256}`
"""


def _rows(result: dict[str, Any]) -> str:
    rows = timestep_rows(result)
    return "\n".join(f"| {t} | {percent(right)} | {percent(share)} |" for t, right, share in rows)


def _which(data: dict[str, Any]) -> str:
    """Which checkpoint it is."""
    return "the last" if data.get("train_on_validation") else "the best on the validation split"


def _settings(config: dict[str, Any]) -> str:
    """What differs from the defaults, as flags."""
    default = {key: _plain(value) for key, value in flat(default_config().to_dict()).items()}
    settings = {key: _plain(value) for key, value in flat(config).items()}
    changed = (key for key, value in settings.items() if value != default.get(key))
    return "\n".join(f"--config.{key}={settings[key]}" for key in changed)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
