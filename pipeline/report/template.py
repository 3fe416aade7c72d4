"""How the report's pages are filled in: every text escaped, every figure in the same way."""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.text import printable
from pipeline.report import format as figures

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
GENERATOR = '<meta name="generator" content="edgetrt">'  # by which a page is known as ours
FILTERS = (
    figures.ending,
    figures.interval,
    figures.megabytes,
    figures.number,
    figures.p_value,
    figures.percent,
    figures.points,
    figures.points_span,
    figures.shortened,
    figures.significant,
    figures.span,
)


def environment() -> "Environment":
    """Jinja2 for the templates beside this file (`macros.html.j2` has what pages share).

    What a template writes is made printable and escaped, whatever it holds. The functions of
    `FILTERS` are filters by their own names; `counted` and `security_policy` are functions;
    `sort_script` is the source text of `sort.js`.
    """
    from jinja2 import Environment, FileSystemLoader

    found = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        # Everything a template writes goes through here, before it is escaped.
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters.update({shown.__name__: shown for shown in FILTERS})
    found.globals.update(counted=figures.counted, security_policy=security_policy)
    found.globals.update(sort_script=(FOLDER / "sort.js").read_text("utf-8"))
    return found


def security_policy(script: str = "") -> str:
    """The page's Content-Security-Policy: nothing from elsewhere, no script but this very one.

    Args:
        script: all that stands between <script> and </script>; "" where there is none.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    return policy


def _printable(value: Any) -> Any:
    return printable(value) if type(value) is str else value
