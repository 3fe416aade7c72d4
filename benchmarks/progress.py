"""What a command tells the person who started it: lines and progress, on stderr."""

import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Callable, Iterator

from engines.text import printable

LOG_INTERVAL = 10.0  # seconds between two lines of progress where there is no terminal


class Console:
    """Where messages go: a bar on a terminal, plain lines in a log, nothing when quiet.

    Results go to stdout and are not this class's business; warnings are shown even when quiet.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print one line, unless quiet."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning, quiet or not."""
        print("warning: " + printable(text), file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show how far a long piece of work is: count, rate and time left.

        Args:
            label: what is being done.
            total: how many units there are in all, or about to be: there may be more.
            unit: what is counted, in the plural ("pictures").

        Yields:
            A function to call with the number of units just finished.
        """
        if self.quiet or not total:
            yield lambda _count: None
        elif sys.stderr.isatty() and find_spec("rich"):  # a device may lack it
            with _terminal_bar(label, total, unit) as advance:
                yield advance
        else:
            with _log_lines(label, total, unit) as advance:
                yield advance


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


@contextmanager
def _terminal_bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate)
    with Progress(*columns, TimeLeft(), console=RichConsole(stderr=True)) as bar:
        task = bar.add_task(label, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            bar.update(task, total=max(total, bar.tasks[0].completed))
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed or 0.0
            bar.update(task, rate=f"{_rate(speed)} {unit}/s")

        yield advance


@contextmanager
def _log_lines(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    done = 0

    def line(now: float) -> str:
        rate = done / max(now - start, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
        return f"{label}: {done}/{total} {unit}, {_rate(rate)} {unit}/s{left}"

    def advance(count: int) -> None:
        nonlocal done, last, total
        done += count
        total = max(total, done)
        now = time.monotonic()
        if now - last >= LOG_INTERVAL and done < total:
            last = now
            print(line(now), file=sys.stderr, flush=True)

    yield advance
    print(line(time.monotonic()), file=sys.stderr, flush=True)
