"""Other tools' formats: evaluation logs of Inspect AI, lm-evaluation-harness, garak and promptfoo become evidence. No torch."""

from auditgap.exchange.importing import Import, import_log
from auditgap.exchange.log import ImportedLog, Metric
from auditgap.exchange.reading import Limits
from auditgap.exchange.recognise import read_log
from auditgap.exchange.result import Bar, measure, result_of

__all__ = ["Bar", "Import", "ImportedLog", "Limits", "Metric", "import_log", "measure", "read_log", "result_of"]
