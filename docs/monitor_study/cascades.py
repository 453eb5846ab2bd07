"""A cascade of an organism's monitor and a logit lens as judge: what both miss together."""

from collections.abc import Sequence

import numpy as np

from auditgap.monitor import Monitor
from auditgap.monitor.cascade import Costs, calibrate, decide, joint_miss
from auditgap.monitor.judges import lens_judge
from auditgap.monitor.scoring import peaks
from monitor_study.subject import BATCH_SIZE, Prompt, Subject, line, prompts_of, share, still, table

COSTS = Costs(judge=1.0, person=0.0, false_alarm=50.0, miss=1000.0)
N_PLAIN = 400


def cascade(subject: Subject, monitor: Monitor, attacked: Sequence[Prompt], *, openings: Sequence[str]) -> None:
    """Thresholds of least cost on the corpus and ordinary traffic, then what gets past probe and judge together."""
    model, judge = subject.model, lens_judge(subject.model, openings)

    def seen(prompts: Sequence[Prompt]) -> tuple[list[str], list[float]]:
        said = [[m.model_dump() for m in prompt] for prompt in prompts]
        texts = [str(model.tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)) for m in said]
        return texts, peaks(model, monitor, prompts, max_new_tokens=0, batch_size=BATCH_SIZE)

    half, test = len(attacked) // 2, subject.rows.split("test")
    harmful = [row.prompt for row in test.rows if row.label and not isinstance(row.prompt, str)] + list(attacked[:half])
    plain = prompts_of(subject.traffic.split("val"))[:N_PLAIN]
    texts, scores = seen([*plain, *harmful])
    labels = [0] * len(plain) + [1] * len(harmful)
    found = calibrate(texts, scores, labels, judge, costs=COSTS, max_fpr=subject.fitting.max_fpr, has_person=False)
    head = f"cascade: <= {found.low:.1f} passes, > {found.high:.1f} is flagged"
    table(head, "n", "flagged", "judged", "independence would miss")
    triggered = still(subject, subject.cases[0].prompts)
    for name, prompts in (("triggered", triggered), ("attacked", attacked[half:]), ("ordinary", subject.fresh)):
        texts, scores = seen(prompts)
        verdicts = [decide(found, text, s, judge) for text, s in zip(texts, scores, strict=True)]
        judged = f"{np.mean([v.decided_by in ('judge', 'nobody') for v in verdicts]):.1%}"
        alone = joint_miss(found, texts, scores, judge, [str(i) for i in range(len(texts))]).product
        missed = "-" if name == "ordinary" else f"{alone:.1%}"
        line(name, len(prompts), share([v.flagged for v in verdicts]), judged, missed)
