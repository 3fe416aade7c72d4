"""What can go wrong for a person, by what they can do about it."""


class PipelineError(Exception):
    """A stage failed at its work; the message says what, where and what to do (exit code 1)."""


class UsageError(PipelineError):
    """The command can't be carried out as given: wrong flag, folder or order (exit code 2)."""


def printable(text: object) -> str:
    """`text` on one line: control characters and undecodable bytes escaped, nothing else changed.

    File names may hold line breaks, escape sequences and bytes that are no UTF-8.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in str(text)
    )
