"""What makes the next build or start faster, in the user's own cache folder."""

import os
import re
from pathlib import Path


def cache_file(*parts: str) -> Path:
    """The file for what is known by some words, such as a version and the name of a GPU.

    In XDG_CACHE_HOME or ~/.cache, which must be the user's own: such files hold what GPUs execute.
    """
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    name = "-".join(re.sub(r"[^A-Za-z0-9]+", "_", part) for part in parts)
    return Path(home) / "edgetrt" / (name + ".cache")
