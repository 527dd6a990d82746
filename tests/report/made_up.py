"""Results of evaluations, made up, that mean nothing; and what is read in what is made of them."""

import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from seenn_jax.evaluation.details import Details, Example
from seenn_jax.report.console import print_result
from seenn_jax.report.page import page


def made_up(**changes):
    """A made-up result of a confidence exit, T = 4, with a sweep of 200 thresholds."""
    thresholds = [0.2 + 0.7999 * i / 199 for i in range(200)]
    effort = [(math.exp(6 * i / 199) - 1) / (math.exp(6) - 1) for i in range(200)]
    result = {
        "exit": "confidence",
        "knob": "threshold",
        "threshold": 0.6291234567,
        "threshold_rule": "chosen on validation: fewest timesteps within 0.1 point of all 4",
        "accuracy": 0.9012,
        "replayed_accuracy": 0.9017,
        "average_timesteps": 1.1734,
        "exit_shares": [0.8777, 0.0921, 0.0098, 0.0204],
        "static_accuracy": [0.8715, 0.8893, 0.9034, 0.9041],
        "sweep": [
            {
                "threshold": threshold,
                "accuracy": 0.8715 + 0.0326 * (1 - math.exp(-40 * share)),
                "average_timesteps": 1 + 2.9 * share,
                "exit_counts": [10000 - round(9000 * share), round(9000 * share), 0, 0],
            }
            for threshold, share in zip(thresholds, effort, strict=True)
        ],
        "by_class": [
            {"class": "cat", "samples": 4000, "right": 3000, "exit_counts": [3000, 500, 250, 250]},
            {"class": "dog", "samples": 5000, "right": 4998, "exit_counts": [2500, 2500, 0, 0]},
            {"class": "fox", "samples": 1000, "right": 1000, "exit_counts": [1000, 0, 0, 0]},
        ],
        "mistakes": [
            {"label": 0, "answer": 1, "count": 990},
            {"label": 0, "answer": 2, "count": 10},
            {"label": 1, "answer": 0, "count": 2},
        ],
        "calibration": {
            "ece": 0.0321,
            "bins": [
                {"samples": 0, "confidence": None, "accuracy": None},
                {"samples": 9, "confidence": 0.45, "accuracy": 0.5556},
                {"samples": 9991, "confidence": 0.9375, "accuracy": 0.9025},
            ],
        },
        "confidence_by_timestep": [
            {"right": [0.5, 0.6, 0.7, 0.8, 0.9], "wrong": [0.1, 0.2, 0.3, 0.4, 0.45]},
            {"right": [0.55, 0.65, 0.75, 0.85, 0.95], "wrong": [0.15, 0.25, 0.35, 0.4, 0.5]},
            {"right": [0.6, 0.7, 0.8, 0.9, 1.0], "wrong": [0.2, 0.3, 0.4, 0.5, 0.6]},
            {"right": [0.9, 0.92, 0.94, 0.96, 0.98], "wrong": None},
        ],
        "guarantee": None,
        "policy": None,
        "aet": 1.3358,
        "oracle_aet": 1.1519,
        "oracle_accuracy": 0.9411,
        "num_samples": 10000,
        "timesteps": 4,
        "dataset": "cifar10",
        "dataset_note": "the pixels of this copy were JPEG-compressed",
        "split": "test",
        "seed": 1723,
        "revision": "4f1c2ab90d3e",
        "versions": {"python": "3.12.4", "jax": "0.11.2", "flax": "0.12.10"},
        "device": "NVIDIA H100 80GB HBM3",
        "workdir": "runs/cifar10",
        "checkpoint_step": 3344,
        "images_per_second": 19560.4,
    }
    assert changes.keys() <= result.keys()
    return result | changes


OF_LATER_VERSIONS = {"by_class", "mistakes", "calibration", "confidence_by_timestep"}


def made_up_old():
    """As versions before these figures wrote it."""
    result = {name: value for name, value in made_up().items() if name not in OF_LATER_VERSIONS}
    sweep = [{k: v for k, v in row.items() if k != "exit_counts"} for row in result["sweep"]]
    return result | {"sweep": sweep}


def example(**changes):
    """A made-up image of a report."""
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return Example(image, "cat", "cat", 1, 0.875)._replace(**changes)


def made_up_details(**changes):
    """Made-up details, which mean nothing."""
    details = Details(
        {
            "easiest": [example()] * 24,
            "hardest": [example(timesteps=4, confidence=0.5)] * 24,
            "wrong": [example(answer="fox", timesteps=3, confidence=0.75)],
        },
        [
            {"step": 9, "epoch": 1, "train/loss": 2.5, "train/accuracy": 0.25},
            {
                **{"step": 18, "epoch": 2, "train/loss": 1.25, "train/accuracy": 0.5},
                **{f"validation/accuracy_{t}": 0.5 + t / 16 for t in (1, 2, 3, 4)},
            },
        ],
        [("data.note", "", ""), ("model.width", 24, 16), ("policy.candidates", (), ())],
    )
    return details._replace(**changes)


CONVERSION = {
    "ann_accuracy": 0.9312,
    "timesteps": [1, 8],
    "accuracy": [0.7001, 0.9275],
    "layers": [
        {"place": "stem", "threshold": 1.25, "error": [0.2, 0.0125]},
        {"place": "blocks.0.neuron1", "threshold": 2.5, "error": [0.4, 0.03125]},
    ],
    "workdir": "runs/<one>",
    "dataset": "cifar10",
    "split": "test",
    "activation": "qcfs",
    "quantization_levels": 8,
    "precision": "float32",
}


ENERGY = {
    "at_exit": {
        "synaptic_operations": 1_234_567.0,
        "macs": 162_000.5,
        "picojoules": 1_856_312.0,
        "picojoules_stem_each_timestep": 2e9,
    },
    "by_timestep": [
        {
            "synaptic_operations": t * 1e6,
            "macs": 150_000.0,
            "picojoules": t * 900_000.0,
            "picojoules_stem_each_timestep": t * 1_000_000.0,
        }
        for t in (1, 2, 3, 4)
    ],
    "policy_macs": 0,
    "ann": {"macs": 5_000_000, "picojoules": 23_000_000.0},
    "layers": [
        {"place": "stem", "receives": "pixels", "macs": 150_000, "operations": 150_000.0},
        {"place": "blocks.0.conv1", "receives": "spikes", "macs": 4e6, "operations": 1_234_567.0},
    ],
    "rates": [{"place": "stem", "rate": 0.3125}, {"place": "blocks.0.neuron1", "rate": 0.0525}],
    "memory": {
        "at_exit": {"bytes": {}, "chip": 700_000.0, "dram": 12_500.0, "picojoules": 2_144_000.0},
        "by_timestep": [
            {"bytes": {}, "chip": t * 6e5, "dram": 3072.0, "picojoules": t * 7_500_000.0}
            for t in (1, 2, 3, 4)
        ],
        "ann": {"bytes": {}, "chip": 900_000.0, "dram": 3072.0, "picojoules": 12_000_000.0},
    },
}


def made_up_full(**changes):
    return made_up(
        exit="full",
        threshold=None,
        threshold_rule="none: every sample runs all timesteps",
        accuracy=0.9041,
        replayed_accuracy=0.9041,
        average_timesteps=4.0,
        exit_shares=[0.0, 0.0, 0.0, 1.0],
        sweep=[],
        images_per_second=None,
        dataset_note=None,
        **changes,
    )


def made_up_single(**changes):
    return made_up(
        timesteps=1,
        accuracy=0.8715,
        replayed_accuracy=0.8715,
        average_timesteps=1.0,
        exit_shares=[1.0],
        by_class=[{"class": "0", "samples": 10000, "right": 8715, "exit_counts": [10000]}],
        mistakes=[],
        confidence_by_timestep=[{"right": [0.5] * 5, "wrong": None}],
        static_accuracy=[0.8715],
        sweep=[
            {"threshold": t, "accuracy": 0.8715, "average_timesteps": 1.0, "exit_counts": [10000]}
            for t in (0.3, 0.6, 0.9)
        ],
        aet=1.0,
        oracle_aet=1.0,
        **changes,
    )


def made_up_guarantee():
    return made_up(
        guarantee={
            "threshold": 0.6291234567,
            "certified": True,
            "loss": "disagreement",
            "eps": 0.0173,
            "delta": 0.0951,
            "n": 5123,
            "empirical_risk": 0.01234,
            "p_value": 0.0667,
            "average_timesteps": 1.1888,
            "reported_risk": 0.01432,
        }
    )


def made_up_policy(collapsed_to=None):
    return made_up(
        exit="policy",
        knob="price",
        threshold=0.0,
        threshold_rule="the most probable candidate of the policy",
        policy={
            "candidates": [1, 2, 4],
            "beta": 0.375,
            "macs": 12_580_000,
            "network_macs": 2_285_000_000,
            "collapsed_to": collapsed_to,
            "confidence": {
                "threshold": 0.8125,
                "accuracy": 0.9034,
                "average_timesteps": 1.1738,
                "sweep": [
                    {"threshold": 0.1, "accuracy": 0.87, "average_timesteps": 1.0},
                    {"threshold": 1.0, "accuracy": 0.904, "average_timesteps": 4.0},
                ],
            },
        },
    )


ALL = pytest.mark.parametrize(
    "result",
    [
        *(made_up(), made_up_full(), made_up_single(), made_up_guarantee(), made_up_policy()),
        made_up_old(),
    ],
    ids=["confidence", "full", "T=1", "guarantee", "policy", "old"],
)


class Page(HTMLParser):
    """The text and the tags of a page; fails where a tag is not closed in its turn."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.pieces = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg", "script"} & set(self.open):
            self.pieces.append(data)


def page_of(result, details=None):
    return Page(page(result, details))


def printed(result, **options):
    file = io.StringIO()
    print_result(result, Console(file=file, width=80, force_terminal=False, **options))
    return file.getvalue()
