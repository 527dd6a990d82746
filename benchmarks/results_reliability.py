"""docs/reliability.md: what is lost where runs are killed, disks fill and files rot."""

from tables import all_of, count, paragraph, percent, sources, table

INTRODUCTION = """# Reliability

What is lost where runs are killed, disks fill, files rot and things are started twice.
`python benchmarks/soak.py` (`make soak`) tries it, for hours; this page is printed from what it
found, by `benchmarks/print_results.py`. [Runs and reports](reports.md#what-can-go-wrong) says what
a program does in each case.

*Lost in silence* is a try after which a run ends with other bits than an undisturbed one's, lacks a
line of its log or has it twice, in `metrics.jsonl` or in TensorBoard, or in which other data than
were written are used without a word, or a program ends without one. A *traceback* is anything more
than one sentence. Of a run saved on 8 devices and continued on 1, which sum in another order, the
numbers are compared in float64, to a millionth; of all others every bit."""
TO_TELL_BY = """JPEG, WebP and BMP images, event recordings, and the JSON and text files of TFDS
have no checksum: what still reads there can't be told from a whole file, and is counted apart."""


def page() -> str:
    """What docs/reliability.md holds."""
    found = all_of("reliability")
    tried = [record for record in found if "tries" in record["figures"]["rows"][0]]
    lines = [_line(row, record) for record in tried for row in record["figures"]["rows"]]
    header = ["", "tries", "lost in silence", "tracebacks", "note", "`soak.py`"]
    parts = [
        INTRODUCTION,
        table(header, lines),
        paragraph(TO_TELL_BY),
        *(_cost(record) for record in found if record not in tried),
        "## Commands",
        sources(*found),
    ]
    return "\n\n".join(parts) + "\n"


def _line(row: dict, record: dict) -> list[str]:
    """A row of the table."""
    counts = map(count, (row["tries"], row["lost"], row["tracebacks"]))
    flags = record["command"].removeprefix("python benchmarks/soak.py ")
    return [row["what"], *counts, row["note"], f"`{flags}`"]


def _cost(record: dict) -> str:
    """What checksums cost, in a paragraph."""
    saved, step = record["figures"]["rows"]
    share = percent(saved["bytes_of_checksums"] / saved["bytes"])
    text = (
        f"A {saved['of']} of {saved['bytes'] / 2**20:.0f} MiB is larger by "
        f"{saved['bytes_of_checksums']} bytes ({share} %) for its checksums. It holds training up "
        f"for {saved['seconds_held_with']:.2f} s, without checksums for "
        f"{saved['seconds_held_without']:.2f} s, and is written after "
        f"{saved['seconds_written_with']:.2f} s and {saved['seconds_written_without']:.2f} s. A "
        f"{step['of']}, takes {1000 * step['seconds_with']:.2f} ms with and "
        f"{1000 * step['seconds_without']:.2f} ms without them "
        f"(ratio {step['seconds_with'] / step['seconds_without']:.3f})."
    )
    return f"## What checksums cost\n\n{paragraph(text)}"
