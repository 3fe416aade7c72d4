"""Every Python of a played device starts with this: a breakpoint in the agent.

The agent's changes of its disk are counted: files opened for writing, renamed, linked, removed,
and programs started. `DEVICE/stop-at` holds a number: before that change (the first is 1) the
agent writes `DEVICE/stopped` and stands still, until a test lets it go on or kills it.
`DEVICE/changes` lists the changes, one a line.
"""

import os
import signal
import sys

CHANGES = ("os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir",
           "os.truncate", "os.chmod", "fcntl.flock", "subprocess.Popen", "os.fork",
           "os.posix_spawn")  # fmt: skip


def _watch(device: str) -> None:
    home = os.path.join(device, "home")
    try:
        with open(os.path.join(device, "stop-at")) as file:
            stop_at = int(file.read())
    except OSError:
        stop_at = 0
    log = os.open(
        os.path.join(device, "changes"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    )
    count = 0
    me = os.getpid()

    def changed(event, args):  # type: ignore[no-untyped-def]
        nonlocal count
        if event == "open":
            path, _, flags = args
            if not (flags & (os.O_WRONLY | os.O_RDWR)) or not str(path).startswith(home):
                return
        elif event not in CHANGES or not _matters(event, args[0]):
            return
        if os.getpid() != me:  # between fork and exec
            return
        count += 1
        words = " ".join(str(word) for word in args[:2]).replace(home, "~")
        os.write(log, f"{count} {event} {words[:300]}\n".encode("utf-8", "replace"))
        if count == stop_at:
            mark = os.open(os.path.join(device, "stopped"), os.O_WRONLY | os.O_CREAT)
            os.write(mark, f"{me} {event} {words[:300]}".encode())
            os.close(mark)
            os.kill(me, signal.SIGSTOP)

    sys.addaudithook(changed)


def _matters(event: str, path: object) -> bool:
    """Whether something will be different: much is removed that is not there."""
    if event in ("os.remove", "os.mkdir") and os.path.isabs(str(path)):
        return os.path.lexists(str(path)) == (event == "os.remove")
    return True


if "agent" in sys.orig_argv[1:4]:
    _watch(os.path.dirname(os.environ["HOME"]))
