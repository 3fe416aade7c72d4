"""Packages that only a peer needs: fetched when it is measured, into a folder of their own."""

import subprocess
import sys
from pathlib import Path

from engines.cache import cache_file
from engines.engine import EngineError
from engines.text import printable

SECONDS = 300  # that fetching may take


def make_importable(requirement: str, sha256: str) -> None:
    """See that a package of pure Python can be imported.

    It lies in edgetrt's folder in the user's cache, and stands last in the search path: nothing
    that is installed is hidden by it.

    Args:
        requirement: name and version, such as "polygraphy==0.53.6". What it depends on is not
            fetched.
        sha256: of the only file that is accepted.

    Raises:
        EngineError: it can't be had, such as without a network.
    """
    folder = cache_file("peers").with_name("peers") / requirement
    if not folder.is_dir():
        _fetch(requirement, sha256, folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _fetch(requirement: str, sha256: str, folder: Path) -> None:
    fresh = folder.with_name(".tmp-" + folder.name)
    fresh.mkdir(parents=True, exist_ok=True)
    wanted = fresh / "requirements.txt"
    wanted.write_text("{} --hash=sha256:{}\n".format(requirement, sha256))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--require-hashes", "--only-binary", ":all:", "--upgrade",
               "--target", str(fresh), "-r", str(wanted)]  # fmt: skip
    try:
        subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS
        )
    except subprocess.CalledProcessError as error:
        lines = error.stdout.decode(errors="replace").strip().splitlines() or ["pip failed"]
        raise EngineError(
            "{} can't be had: {}".format(requirement, printable(lines[-1]))
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError("{} can't be had: {}".format(requirement, printable(error))) from error
    fresh.rename(folder)
