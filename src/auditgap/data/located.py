"""Where a name of a data set or a model leads, seen from a folder."""

import re
from pathlib import Path

from auditgap.errors import PlanError

__all__ = ["located"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?<!\.jsonl)(?<!\.csv)")


def located(name: str, folder: Path) -> str:
    """A file or folder as seen from `folder`; `shipped:`, `hub:` and Hub ids (org/name) stay as they are.

    Raises:
        PlanError: it could be a Hub id, is not in the folder, and is in the working directory.
    """
    path = folder / name
    if ":" in name.partition("/")[0]:
        return name
    if path.exists() or not _HUB_ID.fullmatch(name):
        return str(path)
    if Path(name).exists():
        raise PlanError(
            f"expected '{name}' in the plan's folder {folder}, where paths start, or a Hub id; "
            "got a path of the working directory: write it as seen from the plan"
        )
    return name
