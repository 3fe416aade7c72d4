"""Reading what a stage wrote."""

import json
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError


def read_json(path: Path) -> Any:
    """Read JSON from `path`.

    Raises:
        PipelineError: it can't be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PipelineError(
            f"{path} is damaged ({error}); remove it and run its stage again"
        ) from error
