"""The releases on a device's disk. Whatever moment the power fails, `current` leads to a whole one.

lock           taken by whoever changes anything here
key.pem        the public key whose bundles are accepted
files/         all files of all releases, by their SHA-256
releases/ID/   a release: manifest, files, engines, report; last of all release.json, which also
               names the program in files/ that serves it; program.pyz leads there
current        link to the release that is served
pending.json   what was switched from and to, until that proved good
history.json   what was current, newest last; its order counts, not its clock
"""

import json
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set
from uuid import uuid4

from benchmarks.device.release import root as root_folder
from benchmarks.device.release.content import Content, Missing, sync, sync_tree
from benchmarks.device.release.trust import Trust
from engines.bundle.manifest import MANIFEST, SIGNATURE, BundleError, Manifest, parse
from engines.engine import EngineError
from engines.files import TEMPORARY, remove, sha256_of, write_bytes, write_json

SCHEMA = 1  # of release.json
RELEASE = "release.json"
PROGRAM = "program.pyz"
HOME = Path(__file__).resolve().parents[3]  # the folder or zip file that this program is
DEPLOYED, ROLLED_BACK = "deployed", "rolled back"  # events of the history
REMEMBERED = 100  # events
OLD = 3600.0  # seconds after which nobody is about to use a file that no release has

_ID = re.compile("[0-9a-f]{16}")
_SHA256 = re.compile("[0-9a-f]{64}")


class Store:
    """The releases of one device.

    Reading needs nothing; whatever changes something is called within `locked`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(os.path.expanduser(str(root))))  # noqa: PTH100, PTH111
        self.content = Content(self.root / "files")
        self.trust = Trust(self.root / "key.pem")
        self.serving = self.root / "serve.json"  # the server's own word
        self._releases = self.root / "releases"
        self._current = self.root / "current"
        self._pending = self.root / "pending.json"
        self._history = self.root / "history.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everyone else from changing anything here.

        Raises:
            EngineError: somebody is at it, or the folder can't be used.
        """
        with root_folder.locked(self.root):
            self._check_places()
            for folder in (self.content.folder, self._releases):
                if not folder.is_dir():
                    folder.mkdir(mode=0o700)
                    sync(self.root)
            yield

    def _check_places(self) -> None:
        if self._current.exists() and not self._current.is_symlink():
            raise EngineError("{} is no link; move it away".format(self._current))
        self.content.check()

    # What there is

    def folder(self, release: str) -> Path:
        """Where a release lies."""
        return self._releases / release

    def current(self) -> Optional[str]:
        """The release that `current` leads to."""
        try:
            folder, name = os.path.split(os.readlink(str(self._current)))  # noqa: PTH115
        except OSError:
            return None
        return name if folder == "releases" and _ID.fullmatch(name) else None

    def about(self, release: Optional[str]) -> Optional[Dict[str, Any]]:
        """The release.json of a release; None if it is unfinished."""
        if not isinstance(release, str) or not _ID.fullmatch(release):
            return None
        found = read_json(self.folder(release) / RELEASE)
        whole = isinstance(found, dict) and found.get("complete") and found.get("id") == release
        return found if whole and found.get("schema") == SCHEMA else None

    def program(self, release: Optional[str]) -> Optional[Path]:
        """The file that serves a release; None if that is whatever program is at hand."""
        sha256 = (self.about(release) or {}).get("program")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            return None
        path = self.content.path(sha256)
        return path if path.is_file() else None

    def releases(self) -> List[str]:
        """All that have a folder, unfinished ones too."""
        if not self._releases.is_dir():
            return []
        return sorted(p.name for p in self._releases.iterdir() if _ID.fullmatch(p.name))

    def manifest(self, release: str) -> Manifest:
        """The manifest of a release.

        Raises:
            BundleError: it is damaged, gone, or not the one that the release is named after.
        """
        try:
            manifest = parse((self.folder(release) / MANIFEST).read_bytes())
        except OSError as error:
            raise BundleError("release {} is damaged: {}".format(release, error)) from error
        if manifest.id != release:
            raise BundleError("release {} is damaged: its manifest was changed".format(release))
        return manifest

    def check(self, release: str) -> Dict[str, Any]:
        """See that a release is what was deployed, by the hash of every file of its bundle.

        Returns:
            Its release.json.

        Raises:
            BundleError: it is not; names the file.
        """
        about = self.about(release)
        if about is None:
            raise BundleError("release {} is unfinished".format(release))
        for file in self.manifest(release).files:
            path = self.folder(release) / file.path
            if not path.is_file() or sha256_of(path) != file.sha256:
                raise BundleError("release {} is damaged: {}".format(release, file.path))
        return about

    def history(self) -> List[Dict[str, Any]]:
        """What was current, newest last."""
        found = read_json(self._history)
        return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []

    def pending(self) -> Optional[Dict[str, Any]]:
        """The switch that is not confirmed; None if there is none.

        Returns:
            "from" and "to", the releases; "before", the release.json that was in the place of the
            one switched to; "event", what it is to be; and "switch", by which the history knows
            this very one.
        """
        found = read_json(self._pending)
        return found if isinstance(found, dict) else None

    def previous(self) -> Optional[str]:
        """The release that was deployed before the current one, and is still here."""
        stack = [release for release in self._stack() if self.about(release) is not None]
        current = self.current()
        if current in stack:
            stack = stack[: stack.index(current)]
        return stack[-1] if stack else None

    def missing(self, manifest: Manifest) -> List[Missing]:
        """What has to be sent of a bundle, each content once; all that is here is hashed anew."""
        by_hash = {file.sha256: file for file in manifest.files}
        looked = [self.content.look(file) for file in by_hash.values()]
        return [missing for missing in looked if missing is not None]

    # Making one

    def begin(self, manifest: Manifest, data: bytes, signature: Optional[bytes]) -> Path:
        """Open the folder of a release, so that what is sent for it belongs to something."""
        folder = self.folder(manifest.id)
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            sync(self._releases)
        _write_if_other(folder / MANIFEST, data)
        if signature is None:
            remove(folder / SIGNATURE)
        else:
            _write_if_other(folder / SIGNATURE, signature)
        return folder

    def stage(self, manifest: Manifest) -> Path:
        """Put a bundle's files into its release; all of them have been received.

        With them goes this program, if it is one file: it serves the release from the switch on.
        """
        folder = self.folder(manifest.id)
        for file in manifest.files:
            self.content.link(file.sha256, folder / file.path)
        if HOME.is_file():
            self.content.add(HOME)
        self._lead_to_program(manifest.id)
        return folder

    # Switching

    def switch(self, release: str, about: Dict[str, Any], event: str = DEPLOYED) -> None:
        """Make a release the current one: for the time being, until `confirm`.

        Args:
            about: what its release.json shall say.
            event: what it will be once it is confirmed.
        """
        folder, before = self.folder(release), self.about(release)
        sync_tree(folder)
        was = {"from": self.current(), "to": release, "before": before, "event": event}
        write_json(self._pending, dict(was, switch=uuid4().hex))
        if before != about:
            write_json(folder / RELEASE, about)
        self._lead_to_program(release)
        self._point(release)

    def renew(self) -> None:
        """Let the server look at the current release anew."""
        self._point(self.current())

    def confirm(self, event: str, text: str = "") -> None:
        """Let the switch stand. From the moment that it is in the history, it does."""
        was = self.pending() or {}
        self._record(event, self.current(), was.get("from"), was.get("switch"), text)
        self._forget_pending()

    def recover(self, reason: str = "nobody confirmed it") -> Optional[str]:
        """Undo a switch that was not confirmed; called before anything else is done.

        Returns:
            The release that was left; None if nothing was to be undone.
        """
        was, last = self.pending(), (self.history() or [{}])[-1]
        if was is None or last.get("switch") == was.get("switch"):
            self._forget_pending()  # if it is there, the history has it, or it can't be read
            return None
        before, tried, current = was.get("from"), was.get("to"), self.current()
        if before is not None and self.about(before) is None:
            before = current  # it is gone: there is no way back
        moved = current == tried
        if moved and before != tried:
            self._point(before)
        about = self.about(tried)
        if about is not None and isinstance(was.get("before"), dict) and about != was["before"]:
            write_json(self.folder(str(tried)) / RELEASE, was["before"])
        if about is not None:
            self._lead_to_program(str(tried))
        if moved and before == tried:  # the same release with another engine
            self._point(before)
        with suppress(OSError):  # a full disk must not stand in the way back
            self._record(ROLLED_BACK, before, tried, was.get("switch"), reason)
        self._forget_pending()
        return tried if moved else None

    def _point(self, release: Optional[str]) -> None:
        """Replace the link, also by an equal one: its new inode tells the server to look again."""
        if release is None:
            remove(self._current)
        else:
            _link(self._current, "releases/" + release)
        sync(self.root)

    def _lead_to_program(self, release: str) -> None:
        """Let program.pyz be what release.json says: a link, for whoever starts it by that name.

        It is no file of its own. Python opens a zip file by its path each time that it imports,
        so one that runs must never become another; those in files/ never do.
        """
        link, program = self.folder(release) / PROGRAM, self.program(release)
        target = None if program is None else "../../files/" + program.name
        now = os.readlink(str(link)) if link.is_symlink() else None  # noqa: PTH115
        if target is None:
            remove(link)
        elif now != target:
            _link(link, target)
        sync(link.parent)

    def _forget_pending(self) -> None:
        remove(self._pending)
        sync(self.root)

    def _record(
        self,
        event: str,
        release: Optional[str],
        left: Optional[str],
        switch: Optional[str],
        text: str,
    ) -> None:
        about = self.about(release) or {}
        entry = {
            "event": event,
            "release": release,
            "from": left,
            "switch": switch,
            "name": about.get("name"),
            "engine": about.get("engine"),
            "when": round(time.time(), 3),
            "text": text,
        }
        write_json(self._history, [*self.history()[1 - REMEMBERED :], entry])

    def _stack(self) -> List[str]:
        """The releases as they lie upon each other: a way back takes those above away."""
        stack = []  # type: List[str]
        for entry in self.history():
            release = entry.get("release")
            if entry.get("event") == ROLLED_BACK:
                while stack and stack[-1] != release:
                    stack.pop()
            elif release in stack:
                stack.remove(release)
            if isinstance(release, str) and _ID.fullmatch(release) and release not in stack:
                stack.append(release)
        return stack

    # Clearing away

    def tidy(self, keep: int, spare: Optional[str] = None) -> List[str]:
        """Remove all releases but the current one and those before it.

        Args:
            keep: how many stay, the current one among them; at least 1. With those that go, all
                files go that nobody needs.
            spare: one more that stays.

        Returns:
            Those that were removed.
        """
        current, stays = self.current(), {spare, self.current()}
        stack = [release for release in self._stack() if self.about(release) is not None]
        if current in stack:
            stack = stack[: stack.index(current)]
        stays.update(stack[1 - keep :] if keep > 1 else [])
        gone = [release for release in self.releases() if release not in stays]
        kept = {sha256_of(HOME)} if HOME.is_file() else set()  # type: Set[str]
        for release in self.releases():
            kept |= set() if release in gone else self._contents(release)
        for release in gone:
            folder = self.folder(release)
            contents = self._contents(release)
            remove(folder / RELEASE)  # from now on it is unfinished, whatever happens
            sync(folder)
            for sha256 in contents - kept:
                self.content.forget(sha256)
            shutil.rmtree(str(folder))
        self.content.sweep(kept, OLD)
        return gone

    def _contents(self, release: str) -> Set[str]:
        """The SHA-256 of all that a release, of any schema, has of the shared files."""
        document = read_json(self.folder(release) / MANIFEST)
        files = document.get("files") if isinstance(document, dict) else None
        files = files if isinstance(files, list) else []
        found = [f.get("sha256") for f in files if isinstance(f, dict)]
        about = read_json(self.folder(release) / RELEASE)
        found.append(about.get("program") if isinstance(about, dict) else None)
        return {sha for sha in found if isinstance(sha, str) and _SHA256.fullmatch(sha)}


def _link(path: Path, target: str) -> None:
    """Make `path` a link, in the place of what it was."""
    temporary = path.with_name(TEMPORARY + path.name)
    remove(temporary)
    temporary.symlink_to(target)
    temporary.replace(path)


def _write_if_other(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)


def read_json(path: Path) -> Any:
    """The value in a file; None if there is none that can be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
