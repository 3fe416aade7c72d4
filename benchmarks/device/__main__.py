"""`python3 edgetrt-device.pyz`, or `python3 -m benchmarks.device` in a checkout."""

import sys

from benchmarks.device.cli import main

if __name__ == "__main__":
    sys.exit(main())
