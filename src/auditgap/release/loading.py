"""What a user's own module holds, by name: a release, or the agent of a live run. Loading it runs the module's code."""

import importlib
import sys
from pathlib import Path

from auditgap.errors import UsageError, nearest

__all__ = ["load_named"]


def load_named(name: str, *, what: str) -> object:
    """What `package.module:name` names: installed, on PYTHONPATH, or in the working directory, in this order.

    The working directory stays on the import path, because the module may import its neighbours later.

    Raises:
        UsageError: there is no such module or name, or the module's own code fails.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute) or module.startswith("."):
        raise UsageError(f"expected package.module:name of {what}, got '{name}'")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = vars(importlib.import_module(module))
    except ImportError as error:
        raise UsageError(
            f"expected {what} in a module, got '{name}': {error}; run it where the module lies, install it or set PYTHONPATH"
        ) from error
    except Exception as error:  # of the module, which is not ours
        raise UsageError(f"expected {what}, got '{name}', whose module fails: {type(error).__name__}: {error}") from error
    if attribute not in found:
        raise UsageError(f"expected {what}, got '{name}', which {module} lacks{nearest(attribute, filter(_is_public, found))}")
    return found[attribute]


def _is_public(name: str) -> bool:
    return not name.startswith("_")
