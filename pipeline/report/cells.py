"""Text that may hold anything, as a cell of Markdown or of a spreadsheet."""

import re

from engines.text import printable

MARKUP = "\\`*_{}[]<>#|~&$@"
# What begins a formula; the wide ones count where East Asian text is typed.
FORMULA = tuple("=+-@＝＋－＠")


def escaped(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown or HTML would take for its own."""
    plain = "".join(rf"\{c}" if c in MARKUP else c for c in printable(text))
    return re.sub(r"^(\d*)([-+.)])", r"\1\\\2", plain)  # at the start, a list's mark


def harmless(text: str) -> str:
    """`text` on one line; an apostrophe before what a spreadsheet would take for a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown
