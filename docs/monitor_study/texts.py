"""The main table of an organism: its monitor beside monitors that see text alone, at the same rate on the same traffic."""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from auditgap.data import as_text
from auditgap.instruments.probing.baselines import text_features
from auditgap.monitor import Monitor
from auditgap.monitor.thresholds import controlled_threshold
from monitor_study.subject import Case, Prompt, Shown, Subject, asked, fitted, line, prompts_of, rate, replies, share, table

TextOf = Callable[[Sequence[Prompt]], list[str]]


def measure(subject: Subject) -> tuple[Monitor, dict[str, Shown]]:
    """Fit, then one row for each case: flagged before the first token, beside what text alone gives."""
    monitor = fitted(subject)
    point, sites = monitor.card.operating_points[0], ", ".join(probe.site for probe in monitor.card.probes)
    print(
        f"\n### {subject.name}: {sites}, a corpus of {len(subject.rows.rows)} rows, {point.n_calibration} negatives calibrate "
        f"for {point.max_fpr:.1%}"
    )
    table("requests", "n", "probe, before the first token", "text of the prompt", "text of the reply, 1 token", "whole reply")
    texts, found = text_monitors(subject), {}
    for case in (*subject.cases, Case("ordinary traffic, fresh", subject.fresh, False)):
        kept, shown, n_harmless = asked(subject, monitor, case)
        note = f" ({n_harmless} more did no harm)" if n_harmless else ""
        line(f"{case.name}{note}", shown.n, rate(shown.n_flagged, shown.n), *(share(text.flags(kept)) for text in texts))
        found[case.name] = shown
    return monitor, found


def text_monitors(subject: Subject) -> tuple["TextMonitor", ...]:
    """Of the prompt, of the first token of the reply, of all of it."""

    def replied(n: int) -> TextOf:
        return lambda prompts: replies(subject.model, prompts, n)

    by_reply = (TextMonitor(subject, replied(n)) for n in (1, subject.max_new_tokens))
    return prompt_monitor(subject), *by_reply


def prompt_monitor(subject: Subject) -> "TextMonitor":
    """Of the prompt."""
    return TextMonitor(subject, lambda prompts: [as_text(prompt) for prompt in prompts])


class TextMonitor:
    """TF-IDF and length of a text, logistic, fitted and calibrated on the rows and traffic of the probe."""

    def __init__(self, subject: Subject, text_of: TextOf) -> None:
        self._text_of = text_of
        ordinary = prompts_of(subject.traffic.split("train"))
        labels = [row.label for row in subject.rows.split("train").rows] + [0] * len(ordinary)
        self._train = text_of([*prompts_of(subject.rows.split("train")), *ordinary])
        (features,) = text_features(self._train)
        self._fitted = LogisticRegression(C=100.0, max_iter=1000).fit(features, labels)
        negatives = self._scores(text_of(prompts_of(subject.traffic.split("val"))))
        found = controlled_threshold(negatives, max_fpr=subject.fitting.max_fpr)
        self._threshold = float("inf") if found is None else found.value

    def flags(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Whether each is flagged."""
        return (self._scores(self._text_of(prompts)) > self._threshold).tolist() if prompts else []

    def _scores(self, texts: Sequence[str]) -> np.ndarray:
        return self._fitted.decision_function(text_features(self._train, texts)[1])
