"""A matplotlib drawing as inline SVG that takes its colours and its font from the page.

matplotlib draws with one placeholder colour per role; each becomes a CSS variable of the page
afterwards, so the same SVG is right in light and dark.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLES = (
    "ink",
    "muted",
    "line",
    "paper",
    "fp32",
    "fp16",
    "int8",
    "other",
    "heat",
    "alert",
    "accent",
)
PLACEHOLDER = {role: f"#0000{i:02x}" for i, role in enumerate(ROLES, start=1)}

STYLE: dict[str, Any] = {
    "axes.edgecolor": PLACEHOLDER["line"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": PLACEHOLDER["muted"],
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 9,
    "grid.color": PLACEHOLDER["line"],
    "grid.linewidth": 0.5,
    "svg.fonttype": "none",
    "text.color": PLACEHOLDER["ink"],
    "text.parse_math": False,
    "xtick.color": PLACEHOLDER["line"],
    "xtick.labelcolor": PLACEHOLDER["muted"],
    "ytick.color": PLACEHOLDER["line"],
    "ytick.labelcolor": PLACEHOLDER["muted"],
}


def inline_svg(
    draw: Callable[["Figure"], None], size: tuple[float, float], prefix: str, label: str
) -> str:
    """Draw a figure and give it as an element of an HTML page.

    Args:
        draw: fills an empty figure, in the colours of PLACEHOLDER; texts must be printable.
        size: width and height in inches; `draw` may change them.
        prefix: begins every id in the SVG; unique on the page.
        label: what the figure shows, for those who can't see it.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    file = io.StringIO()
    # "default" first: the figure must not depend on a person's own matplotlibrc.
    with (
        style.context(["default", {**STYLE, "svg.hashsalt": prefix}]),
        warnings.catch_warnings(),
    ):
        # The page's fonts draw the text, matplotlib's only measure it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(
            file,
            format="svg",
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    drawn = (figure.get_figwidth(), figure.get_figheight())
    return _inline(file.getvalue(), drawn, prefix, label)


def _inline(svg: str, size: tuple[float, float], prefix: str, label: str) -> str:
    """A whole SVG file as an element of an HTML page, with the page's colours and font."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    # Its style sheet would hold for the whole page.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", lambda tag: _adapt_tag(tag.group(), prefix), body)
    width, height = (72 * inches for inches in size)  # matplotlib's SVG units are points
    return (
        f'<svg class="plot" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {width:g} {height:g}">{body.strip()}'
    )


def _adapt_tag(tag: str, prefix: str) -> str:
    """One tag, never the text between tags: text may hold anything."""
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag)
    tag = re.sub(r"font-family:[^;\"]*;?\s*", "", tag)
    for role, colour in PLACEHOLDER.items():
        tag = tag.replace(colour, f"var(--{role})")
    return tag
