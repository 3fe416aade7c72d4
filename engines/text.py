"""Text for people."""

from typing import Sequence


def printable(text: object) -> str:
    """`text` on one line: control characters and undecodable bytes escaped, nothing else changed.

    File names may hold line breaks, escape sequences and bytes that are no UTF-8.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in str(text)
    )


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """A table, one line for each row.

    Args:
        rows: equally many cells in each.
        left: how many columns begin flush left; the numbers after them end flush right.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )
