"""What goes wrong with one device."""

from pipeline.errors import PipelineError


class DeviceError(PipelineError):
    """One device failed; the others go on. The message has one or two lines, without its name.

    Attributes:
        step: what it was at, such as "connect" or "build".
        known: False where it can't be told from here what the device serves now.
        rolled_back: whether the device went back by itself to what it served before.
    """

    def __init__(
        self, text: str, step: str, *, known: bool = True, rolled_back: bool = False
    ) -> None:
        super().__init__(text)
        self.step = step
        self.known = known
        self.rolled_back = rolled_back
