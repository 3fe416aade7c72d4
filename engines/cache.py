"""What makes the next build or start faster, in the user's own cache folder."""

import os
import re
from contextlib import suppress
from pathlib import Path

from engines.files import remove

SUFFIX = ".cache"
MOST = 50  # files of a kind that are kept


def cache_file(*parts: str) -> Path:
    """The file for what is known by some words, such as a version and the name of a GPU.

    In XDG_CACHE_HOME or ~/.cache, which must be the user's own: such files hold what GPUs execute.
    Of a user who has no home, nothing can be kept: the file can be neither read nor written.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    if home.startswith("~"):
        home = os.devnull
    name = "-".join(re.sub(r"[^A-Za-z0-9]+", "_", part) for part in parts)
    return Path(home) / "edgetrt" / (name + SUFFIX)


def forget_oldest(path: Path) -> None:
    """Keep no more than `MOST` files of the kind of this one, which was just written.

    Their kind is their first word. What belongs to one has its name, with another suffix.
    """
    kind = path.name.partition("-")[0]
    with suppress(OSError):  # another process does the same
        found = list(path.parent.glob("{}-*{}".format(kind, SUFFIX)))
        found.sort(key=lambda file: file.stat().st_mtime)
        for old in found[:-MOST]:
            for file in path.parent.glob(old.stem + ".*"):
                remove(file)
