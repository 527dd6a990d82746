"""The table of docs/interop.md: what goes in and out of which library, and how exactly."""

from tables import all_of, sources, table


def block() -> str:
    """The table, and where it comes from."""
    found = all_of("interop")
    header = ["what", "networks", "from, to", "largest difference", "of", "bounded by"]
    rows = [
        [
            row["what"],
            row["networks"],
            row["library"],
            f"{row['difference']:.1e}" if row["difference"] else "0",
            row["of"],
            f"`{row['shown_by']}`",
        ]
        for record in found
        for row in record["figures"]["rows"]
    ]
    return f"{table(header, rows)}\n\n{sources(*found)}"
