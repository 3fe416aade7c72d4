"""Making this process wait for many devices at a time."""


def start() -> None:
    """From now on let other greenlets run wherever one waits for a device.

    pyinfra runs on gevent, whose replacements for sockets, threads and sleeping must be in place
    before anything is imported that uses the originals. So this is the first thing the command
    does, in the process that is its own: there is only the thread that waits for signals, in
    native code, which none of this reaches. TLS is left alone: nobody speaks it here, and what
    imported ssl before, as in the process of a test, keeps what it has.
    """
    from gevent import monkey  # type: ignore[import-untyped]

    monkey.patch_all(ssl=False)
