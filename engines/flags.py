"""Settings as they are typed on a command line, on the host and on a device alike."""

import argparse
from typing import Iterable, List, Tuple

from engines.settings import CALIBRATORS, DEFAULT, EXPLICIT, Settings


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give a command the flags of `Settings`."""
    add = parser.add_argument
    add(
        "--workspace",
        metavar="MIB",
        type=int,
        help="TensorRT: memory for a layer's scratch (what suits the board)",
    )
    add(
        "--batch",
        metavar="MIN,OPT,MAX",
        type=_batch,
        default=DEFAULT.batch,
        help="TensorRT: pictures in a batch, or one number for a static engine (1,1,32)",
    )
    add(
        "--int8",
        choices=[EXPLICIT, *CALIBRATORS],
        default=EXPLICIT,
        help="TensorRT: by the graph's Q/DQ pairs, or up to TensorRT 10 by one of its own "
        "calibrators (%(default)s)",
    )
    add(
        "--force",
        action="store_true",
        help="TensorRT: build also in a precision that the GPU is not made for",
    )


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that the flags of `add_settings` ask for."""
    workspace = None if args.workspace is None else args.workspace << 20
    return Settings(workspace, args.batch, args.int8, force=args.force)


def flags_of(settings: Settings) -> List[str]:
    """What to type for some settings; nothing for what is so by default."""
    flags = []
    if settings.workspace is not None:
        flags += ["--workspace", str(settings.workspace >> 20)]
    if settings.batch != DEFAULT.batch:
        flags += ["--batch", ",".join(map(str, settings.batch))]
    if settings.int8 != EXPLICIT:
        flags += ["--int8", settings.int8]
    return flags + (["--force"] if settings.force else [])


def backends(text: str) -> List[str]:
    """Names of backends with commas between them; the type of such a flag."""
    from engines.catalogue import MODULES  # needs numpy, which is slow to load

    return _names(text, MODULES)


def precisions(text: str) -> List[str]:
    """Precisions with commas between them; the type of such a flag."""
    from engines.catalogue import PRECISIONS

    return _names(text, PRECISIONS)


def _names(text: str, known: Iterable[str]) -> List[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(
                "it takes {}; received {}".format(", ".join(known), name or "nothing")
            )
    return names


def _batch(text: str) -> Tuple[int, int, int]:
    try:
        sizes = [int(size) for size in text.split(",")]
        smallest, best, largest = sizes * 3 if len(sizes) == 1 else sizes
    except ValueError:
        raise argparse.ArgumentTypeError(
            "1,1,32 or one number is expected; received " + text
        ) from None
    return smallest, best, largest
