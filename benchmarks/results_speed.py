"""Sections of docs/results.md about speed and memory: each takes its figures from results/."""

import math

from tables import all_of, count, minutes, section, sources, table

from seenn_jax.cli.overrides import load_config

CIFAR10_TRAIN = 50_000  # images
V5E_FLOPS = 197e12  # bfloat16, a second: Google's "TPU v5e"
V5E_HERTZ = V5E_FLOPS / (4 * 128 * 128 * 2)  # each cell of its four units multiplies and adds


def early_exit() -> str:
    """Images per second of early exit."""
    half, whole, layers = all_of("early_exit_h200")
    at = 512
    columns = [[r for r in x["figures"]["rows"] if r["slots"] == at] for x in (half, whole)]
    rows = [
        [f"{_rate_name(pair[0])}", *(_rate(row) for row in pair)]
        for pair in zip(*columns, strict=True)
    ]
    return section(
        "Speed of early exit",
        f"Trained ResNet-19, T = 4, {count(half['figures']['samples'])} images on the device, "
        f"prescribed exit times, {at} slots: images/s, and in brackets the share of the ideal, the "
        "tick-by-tick run of all T at as many slots, times T / average.",
        table(["average timesteps", "bfloat16", "int8"], rows),
        sources(half, whole),
        *_latency(),
        *_one_kernel(),
        *_layers(layers),
        *_revisions(),
        *_digits_exits(),
    )


def _latency() -> list[str]:
    """Milliseconds of one image."""
    [record] = all_of("latency")
    figures = record["figures"]
    rows = [
        [row["dtype"], f"`{row['revision']}`", *(f"{x:.2f}" for x in row["latency_ms"])]
        for row in figures["rows"]
    ]
    ticks = range(1, figures["timesteps"] + 1)
    return [
        "Milliseconds of one image, from the host to its answer, that exits at t. Since the second "
        "revision it runs without slots, and weights lie as its kernels want them:",
        table(["", "revision", *(f"t = {t}" for t in ticks)], rows),
        sources(record),
    ]


def _rate_name(row: dict) -> str:
    method = {"full": "all ticks at once", "masked": "masked batches"}
    name = method.get(row["method"], row["method"])
    return f"{row['average_timesteps']:.2f}, {name}"


def _rate(row: dict) -> str:
    share = row["share_of_ideal"]
    return count(row["images_per_second"]) + ("" if share is None else f" ({share:.3f})")


def _one_kernel() -> list[str]:
    """Slots and single layers, with a layer and its neurons in one kernel or apart."""
    *slots, layers = all_of("fused")
    rows = [(r["device"], *_trained(r), row) for r in slots for row in r["figures"]["rows"]]
    averages = sorted({f"{row['average_timesteps']:.2f}" for *_, row in rows})
    of = {
        (*key, row["dtype"], row["how"], f"{row['average_timesteps']:.2f}"): row
        for *key, row in rows
    }
    ways = dict.fromkeys(key[:-1] for key in of)
    rate = lambda *key: count(of[key]["images_per_second"])  # noqa: E731
    best = {}
    for row in layers["figures"]["rows"]:
        residual = "with" if row["residual"] else "without"
        key = row["channels"], row["side"], residual, row["how"] == "apart"
        best[key] = min(best.get(key, math.inf), row["microseconds"])
    return [
        "In int8 a layer and its neurons are one kernel (`seenn_jax/models/fused.py`; --apart: as "
        f"before). T = {slots[0]['figures']['timesteps']}, {slots[0]['figures']['slots']} slots, "
        "images/s at so many timesteps on average:",
        table(
            ["GPU", "network", "dtype", "layer and neurons", *averages],
            [[*way, *(rate(*way, average) for average in averages)] for way in ways],
        ),
        f"Microseconds of a tick of one 3x3 layer of {layers['figures']['batch_size']} images, "
        "with its neurons, whose results are the same to the bit (of three sizes of blocks the "
        "best):",
        table(
            ["channels", "side", "residual", "apart", "one kernel"],
            [
                [*key, f"{best[*key, True]:.0f}", f"{best[*key, False]:.0f}"]
                for key in dict.fromkeys(key[:-1] for key in best)
            ],
        ),
        sources(*slots, layers),
    ]


def _trained(record: dict) -> tuple[str]:
    return ("trained" if "trained" in record["what"] else "random, noise",)


def _layers(record: dict) -> list[str]:
    """One layer's convolution by dtype."""
    rows = record["figures"]["rows"]
    names, dtypes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("layer", "dtype"))
    found = {(row["layer"], row["dtype"]): f"{row['microseconds']:.0f}" for row in rows}
    cells = [[name, *(found[name, dtype] for dtype in dtypes)] for name in names]
    text = f"Microseconds of one 3x3 layer of {record['figures']['batch_size']} images:"
    return [text, table(["channels", *dtypes], cells), sources(record)]


def _revisions() -> list[str]:
    """Slots and the training step at several revisions, measured in one run."""
    found = all_of("speed_by_revision")
    slots = {(r["revision"], x["dtype"]): x for r in found for x in r["figures"]["rows"]}
    steps = {r["revision"]: r["figures"].get("training_step") for r in found}
    dtypes = list(dict.fromkeys(dtype for _, dtype in slots))
    rows = []
    for record in found:
        revision, step = record["revision"], steps[record["revision"]]
        rates = [slots.get((revision, dtype)) for dtype in dtypes]
        cells = [count(rate["images_per_second"]) if rate else "" for rate in (*rates, step)]
        rows.append([f"`{revision}`", *cells])
    one, step = next(iter(slots.values())), next(s for s in steps.values() if s)
    text = (
        f"Untrained ResNet-19 in {one['slots']} slots at an average of "
        f"{one['average_timesteps']:.2f} timesteps, and its training step in bfloat16 at T = "
        f"{step['timesteps']}, {step['batch_size']} images; images/s:"
    )
    return [text, table(["revision", *dtypes, "training step"], rows), sources(*found)]


def _digits_exits() -> list[str]:
    """Slots on two CPU cores."""
    [record] = all_of("early_exit_digits_cpu")
    rows = [[row["slots"], _rate_name(row), _rate(row)] for row in record["figures"]["rows"]]
    header = ["slots", "average timesteps", "images/s"]
    return ["ResNet-8 on digits:", table(header, rows), sources(record)]


STEP = ["", "images", "images/s", "TFLOP/s", "GiB", "compiled in"]


def _step(record: dict) -> list[str]:
    figures = record["figures"]
    return [
        record["device"],
        count(figures["batch_size"]),
        count(figures["images_per_second"]),
        count(figures["tflops"]),
        f"{figures['memory_gib']:.1f}",
        minutes(figures["compile_seconds"]),
    ]


def cpu_peers() -> str:
    """The digits' network beside other libraries on a CPU."""
    [inference], [gradient] = all_of("cpu_peers"), all_of("cpu_gradient")
    figures = inference["figures"]
    return section(
        "On a CPU, beside other libraries",
        f"The trained ResNet-8 of digits in float32 on {figures['cores']} cores, images/s at "
        f"batches of so many: all {figures['timesteps']} timesteps, and here with early exit in as "
        f"many slots. PyTorch {figures['torch']} computes layer by layer, channels last; ONNX "
        f"Runtime {figures['onnxruntime']} the exported tick, {figures['timesteps']} times.",
        _by_batch(figures["rows"]),
        "The same network untrained, forward and backward, without augmentation and optimiser:",
        _by_batch(gradient["figures"]["rows"]),
        "So for training PyTorch is the faster one on a CPU.",
        sources(inference, gradient),
    )


def _by_batch(rows: list[dict]) -> str:
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    ways = dict.fromkeys(row["way"] for row in rows)
    rates = {(row["way"], row["batch"]): row["images_per_second"] for row in rows}
    return table(["", *batches], [[way, *(count(rates[way, b]) for b in batches)] for way in ways])


def training_step() -> str:
    """The training step of ResNet-19."""
    one, two = all_of("train_step_h200"), all_of("train_step_2xh100")
    rate = {tuple(r["config"].values()): r["figures"]["images_per_second"] for r in one}
    faster = [f"{rate[n, False] / rate[n, True]:.2f} at {n} images" for n, apart in rate if apart]
    of = {
        (r["device"][0], r["figures"]["batch_size"]): r["figures"]["images_per_second"] for r in two
    }
    gains = [
        f"{of['2', 2 * batch] / of['1', batch]:.2f} at {batch} images a GPU"
        for devices, batch in of
        if devices == "1"
    ]
    return section(
        "Training step",
        "ResNet-19 of width 128, T = 4, bfloat16. On one Hopper GPU BatchNorm and the neurons "
        "after it are one kernel each way; several GPUs, and the H100 when it was measured, have "
        "them apart.",
        table(
            [*STEP, "BatchNorm and neurons"],
            [[*_step(r), "apart" if r["config"]["apart"] else "one kernel"] for r in (*one, *two)],
        ),
        f"In one kernel they are {' and '.join(faster)} times as fast. Two GPUs reach "
        f"{' and '.join(gains)} times the images/s of one.",
        sources(*one, *two),
    )


def scaling() -> str:
    """Time and memory of a step against timesteps and images."""
    [record] = all_of("scaling")
    figures = record["figures"]
    rows = figures["by_timesteps"]
    ways = dict.fromkeys(row["way"] for row in rows)
    timesteps = list(dict.fromkeys(row["timesteps"] for row in rows))
    of = {(row["way"], row["timesteps"]): row for row in rows}

    def cell(way, t):
        return f"{of[way, t]['milliseconds']:,.0f} ms, {of[way, t]['mebibytes']:,.0f} MiB"

    return section(
        "Timesteps, images, memory",
        f"A training step of {rows[0]['batch_size']} images (`{figures['flags']}`). Time is linear "
        "in both. `config.remat` changes nothing on a CPU, neither the time nor the memory; "
        "`config.gradient=last` keeps one tick, whatever T is.",
        table(
            ["", *(f"T = {t}" for t in timesteps)],
            [[w, *(cell(w, t) for t in timesteps)] for w in ways],
        ),
        "![Time and memory of a training step against timesteps and images](scaling.png)",
        sources(record),
    )


def deterministic() -> str:
    """What it costs that a GPU gives the same network each time."""
    records = all_of("deterministic_h100")
    rows = [
        [
            *(record["what"].partition("deterministic: ")[2], f"`{run['checksum']}`"),
            *(count(run["images_per_second"]), minutes(run["compile_seconds"])),
        ]
        for record in records
        for run in record["figures"]["rows"]
    ]
    return section(
        "The same network from the same seed",
        "ResNet-19 of width 128, T = 4, bfloat16, 256 images a step, after 120 steps from the same "
        "seed, each run a process of its own. `config.deterministic` is on by default and asks for "
        "`xla_gpu_deterministic_ops`: then the checksum of the parameters is the same each time.",
        table(["deterministic", "checksum", "images/s", "compiled in"], rows),
        sources(*records),
    )


def imagenet() -> str:
    """The training step of ResNet-34."""
    found = all_of("imagenet_step_h100")
    small, *_, large = (record["figures"] for record in found)
    each = (large["memory_gib"] - small["memory_gib"]) * 1024
    each /= large["batch_size"] - small["batch_size"]
    return section(
        "ImageNet step",
        "Spiking ResNet-34 at 224x224, T = 4, bfloat16:",
        table(STEP, map(_step, found)),
        f"From {count(small['batch_size'])} to {count(large['batch_size'])} images an image takes "
        f"{each:.0f} MiB.",
        sources(*found),
    )


def host_pipeline() -> str:
    """How fast the host reads images."""
    [record] = all_of("host_pipeline")
    figures = record["figures"]
    rows = [
        [row["workers"], *(count(row[f"images_per_second{x}"]) for x in ("", "_and_core"))]
        for row in figures["training"]
    ]
    core = figures["training"][-1]["images_per_second_and_core"]
    step = max(r["figures"]["images_per_second"] for r in all_of("imagenet_step_h100"))
    return section(
        "Input pipeline",
        f"JPEGs of {figures['kilobytes']:.0f} kB, read, decoded and cropped to {figures['side']} "
        "pixels:",
        table(["workers", "images/s", "a core"], rows),
        f"To keep up with the ImageNet step above, {count(step)} images/s, it takes "
        f"{math.ceil(step / core)} cores, if more workers scale as these do.",
        sources(record),
    )


def tpu() -> str:
    """What fits on TPUs, as their compiler says."""
    fits, remat, whole = all_of("tpu_check")
    rows = [_tpu(row) for record in (fits, remat) for row in record["figures"]["rows"]]
    header = ["chip", "GiB", "program", "T", "images a core", "peak GiB", "seconds"]
    return section(
        "TPU check",
        "Compiled for the TPUs of Colab ahead of time and not run: peak memory, and seconds of a "
        "CPU core to compile, with the least optimisation (O0).",
        table(header, rows),
        "With the compiler's default, which train.py takes:",
        table([*header, "cycles"], [_tpu_cycles(row) for row in whole["figures"]["rows"]]),
        _tpu_time(whole),
        sources(fits, remat, whole),
    )


def _tpu(row: dict) -> list:
    program = {"train": "training"}.get(row["program"], row["program"])
    program += " with remat" if row["remat"] else ""
    return [
        *(row["chip"], row["chip_gib"], program, row["timesteps"], row["batch_per_core"]),
        f"{row['peak_gib']:.2f}",
        f"{row['compile_cpu_seconds']:.0f}",
    ]


def _tpu_cycles(row: dict) -> list:
    return [*_tpu(row), count(row["cycles"])]


def _tpu_time(record: dict) -> str:
    """How long the training would take, by cycles of its steps."""
    config = load_config("cifar10_colab")
    cycles = {row["timesteps"]: row["cycles"] for row in record["figures"]["rows"]}
    one = cycles[1] * config.inherit_epochs
    all_ticks = cycles[config.timesteps] * (config.epochs - config.inherit_epochs)
    steps = (CIFAR10_TRAIN - config.data.validation) // config.batch_size
    seconds = steps * (one + all_ticks) / V5E_HERTZ
    return (
        f"An estimate: at {V5E_HERTZ / 1e9:.1f} GHz, with which 4 units of 128 x 128 give a v5e's "
        f"{V5E_FLOPS / 1e12:.0f} TFLOP/s, the {config.epochs} epochs of "
        f"`configs/cifar10_colab.py` would take {seconds / 60:.0f} minutes by these cycles, "
        "without what lies between the fusions, validation and compiling."
    )


def one_answer() -> str:
    """Answers that depend on the program."""
    found = all_of("one_answer")
    rows = [
        [record["what"].removeprefix("One answer of "), *_counts(record["figures"]["rows"], dtype)]
        for record in found
        for dtype in dict.fromkeys(row["dtype"] for row in record["figures"]["rows"])
    ]
    samples = count(found[-1]["figures"]["samples"])
    return section(
        "One answer",
        f"Of {samples} test images, the answers and the exit times that are not those of the "
        "first program, at most of any other:",
        table(["", "dtype", "programs", "answers", "exit times"], rows),
        sources(*found),
    )


def _counts(rows: list[dict], dtype: str) -> list:
    rows = [row for row in rows if row["dtype"] == dtype]
    most = [max(row[f"{x}_that_differ"] for row in rows) for x in ("answers", "exit_times")]
    return [dtype, ", ".join(row["program"] for row in rows), *most]
