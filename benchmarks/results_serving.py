"""The section of docs/results.md about answering images as they come, from results/serve*.json."""

from tables import all_of, count, section, sources, table


def serving() -> str:
    """Latency against load, and what a long storm of requests has shown."""
    parts = []
    for record in all_of("serve"):
        figures = record["figures"]
        parts += [
            f"{record['what'].partition(': ')[2]}, on {record['device']}: {figures['slots']} "
            f"slots, {figures['average_timesteps']:.3f} timesteps on average, the offline engine "
            f"{count(figures['offline_images_per_second'])} images/s.",
            _latencies(figures),
        ]
    [soak] = all_of("serve_soak")
    found = soak["figures"]
    parts.append(
        f"A storm of {count(found['requests'])} requests at a toy network, with deadlines, "
        "cancelled futures, a full queue and images that are not finite, in "
        f"{count(found['seconds'])} s: each was answered once, and as offline; memory "
        f"{count(found['megabytes_half_way'])} MB at half of it, "
        f"{count(found['megabytes_at_the_end'])} MB at its end."
    )
    return section(
        "Images as they come",
        "Latency, p50 / p99 in milliseconds, of images that come at random at so many a second. "
        "*Batches* are of as many images as there are slots, and end when their last one has "
        "exited. *All at once* is what is answered a second where everything waits already.",
        *parts,
        sources(*all_of("serve"), soak),
    )


def _latencies(figures: dict) -> str:
    rows = figures["rows"]
    names = list(dict.fromkeys((row["server"], row["ticks_per_call"]) for row in rows))
    of = {(row["server"], row["ticks_per_call"], row["share_of_offline"]): row for row in rows}
    shares = sorted({row["share_of_offline"] for row in rows} - {None})

    def cell(name, share):
        row = of.get((*name, share))
        if row is None:  # an earlier load was far too much for it already
            return ""
        return f"{row['p50_ms']:,.1f} / {row['p99_ms']:,.1f}"

    offline = figures["offline_images_per_second"]
    header = [
        f"{server}, {ticks} tick{'s' * (ticks > 1)} a call" if ticks else server
        for server, ticks in names
    ]
    lines = [[count(share * offline), *(cell(name, share) for name in names)] for share in shares]
    whole = [of[(*name, None)]["answered_per_second"] for name in names]
    return table(
        ["images/s", *header],
        [*lines, ["all at once", *(f"{count(rate)}/s" for rate in whole)]],
    )
