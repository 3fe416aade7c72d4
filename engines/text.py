"""Text for people."""


def printable(text: object) -> str:
    """`text` on one line: control characters and undecodable bytes escaped, nothing else changed.

    File names may hold line breaks, escape sequences and bytes that are no UTF-8.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in str(text)
    )
