"""Measuring procedures, one file each under `behavioural/`, `mechanistic/` and `comparison/`; importing this registers them all.

Others can add theirs through the entry point group `auditgap.instruments` (a module to import). One that fails to import raises:
an audit must not silently lack an instrument.
"""

import importlib
import pkgutil
from importlib.metadata import entry_points

from auditgap.instruments.contract import Instrument, Progress, configure, find, instrument, quiet, registered

__all__ = ["Instrument", "Progress", "configure", "find", "instrument", "quiet", "registered"]

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
for _plugin in entry_points(group="auditgap.instruments"):
    _plugin.load()
