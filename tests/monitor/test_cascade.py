"""Each layer decides what is its own, thresholds cost least, and misses are measured together."""

import numpy as np
import pytest

from auditgap.errors import CannotMeasure, UsageError
from auditgap.models import generate
from auditgap.monitor.cascade import Cascade, Costs, calibrate, decide, joint_miss
from auditgap.monitor.judges import lens_judge

COSTS = Costs(judge=1.0, person=10.0, false_alarm=20.0, miss=100.0)


def _cascade(**changes) -> Cascade:
    fields = {"rules": ("bomb",), "low": 0.0, "high": 1.0, "cost_per_request": 0.0, "judged": 0.0, "n_calibration": 1} | changes
    return Cascade.model_validate(fields)


def test_every_layer_decides_its_own():
    judge = {"a": "harmful", "b": "harmless", "c": "cannot tell"}.__getitem__
    cascade = _cascade()
    assert decide(cascade, "a BOMB", -9.0, judge) == (True, "rules")
    assert decide(cascade, "b", 1.1, judge) == (True, "probe")
    assert decide(cascade, "a", 0.0, judge) == (False, "probe")
    assert decide(cascade, "a", 1.0, judge) == (True, "judge")
    assert decide(cascade, "b", 0.5, judge) == (False, "judge")
    assert decide(cascade, "c", 0.5, judge) == (True, "nobody")
    assert decide(cascade, "c", 0.5, judge, lambda _: "harmless") == (False, "person")
    assert decide(cascade, "c", 0.5, judge, lambda _: "cannot tell") == (True, "person")
    assert decide(cascade, "b", float("nan"), judge) == (True, "probe")


def test_the_judge_sees_the_uncertain_few_alone():
    """A good probe with a blurred middle: a perfect judge is asked about the middle, and nothing is missed."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    scores = np.where(labels == 1, 3.0, -3.0) + rng.uniform(-3.5, 3.5, 120)
    texts = [f"{'harmful' if label else 'harmless'} {i}" for i, label in enumerate(labels)]
    found = calibrate(texts, scores, labels, _truth, costs=COSTS)
    assert 0.0 < found.judged < 0.5 and found.cost_per_request == pytest.approx(found.judged * COSTS.judge)
    verdicts = [decide(found, text, score, _truth) for text, score in zip(texts, scores, strict=True)]
    assert [v.flagged for v in verdicts] == (labels == 1).tolist()
    assert np.mean([v.decided_by == "judge" for v in verdicts]) == pytest.approx(found.judged)


def _truth(text: str) -> str:
    return text.split()[0]


def test_a_judge_dearer_than_its_errors_is_not_asked():
    labels, scores = [0, 0, 1, 1], [0.0, 1.0, 0.5, 2.0]
    found = calibrate(
        list("abcd"), scores, labels, lambda _: "cannot tell", costs=Costs(judge=1e6, person=0, false_alarm=1, miss=5)
    )
    assert found.judged == 0.0 and found.low == found.high


def test_false_alarms_stay_within_the_limit():
    rng = np.random.default_rng(1)
    labels, scores = np.repeat([0, 1], 50), rng.standard_normal(100)
    texts = [str(i) for i in range(100)]
    blind = calibrate(texts, scores, labels, lambda _: "harmful", costs=COSTS, max_fpr=0.1)
    flagged = [decide(blind, text, score, lambda _: "harmful").flagged for text, score in zip(texts, scores, strict=True)]
    assert np.mean(np.array(flagged)[labels == 0]) <= 0.1
    with pytest.raises(CannotMeasure, match="narrow the rules"):
        calibrate(texts, scores, labels, lambda _: "harmless", costs=COSTS, rules=(".",), max_fpr=0.1)


def test_layers_that_miss_the_same_miss_more_than_their_product():
    """The planted truth: the tenth that the probe is unsure of is the tenth that the judge cannot see."""
    texts = ["plain"] * 90 + ["hidden"] * 10
    scores = [2.0] * 90 + [0.5] * 10
    found = joint_miss(
        _cascade(), texts, scores, lambda text: "harmless" if text == "hidden" else "harmful", [str(i) for i in range(100)]
    )
    assert found.missed.value == pytest.approx(0.1) and found.missed.interval.low > 0.03
    assert dict(found.each)["judge"] == pytest.approx(0.1) and found.product == pytest.approx(0.01)


def test_independent_layers_miss_about_their_product():
    rng = np.random.default_rng(2)
    n = 4000
    texts = ["hidden" if hidden else "plain" for hidden in rng.random(n) < 0.2]
    scores = np.where(rng.random(n) < 0.3, -1.0, 2.0)
    cascade = _cascade(rules=(), low=-2.0)
    found = joint_miss(
        cascade, texts, scores, lambda text: "harmless" if text == "hidden" else "harmful", [str(i) for i in range(n)]
    )
    assert found.missed.interval.low <= found.product <= found.missed.interval.high


def test_the_lens_says_what_the_model_is_about_to_say(model):
    prompts = ["a b c", "d e", "f g h i", "j", "k l m"]
    said = [generate(model, [prompt], max_new_tokens=1)[0].strip() for prompt in prompts]
    assert len(set(said)) > 1
    judge = lens_judge(model, [said[0]], n_depths=1)
    assert [judge(prompt) for prompt in prompts] == ["harmful" if word == said[0] else "harmless" for word in said]
    everything = lens_judge(model, [*"abcdefghijklmnopqrstuvwxyz"], n_depths=4)
    assert {everything(prompt) for prompt in prompts} <= {"harmful", "cannot tell"}
    with pytest.raises(UsageError, match="depths"):
        lens_judge(model, ["a"], n_depths=9)
    with pytest.raises(UsageError, match="one token"):
        lens_judge(model, ["a b"])


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match="both labels"):
        calibrate(["a"], [0.0], [1], _truth, costs=COSTS)
    with pytest.raises(UsageError, match="finite"):
        calibrate(["a", "b"], [0.0, np.nan], [0, 1], lambda _: "harmful", costs=COSTS)
    with pytest.raises(UsageError, match="regular expressions"):
        decide(_cascade(rules=("(",)), "a", 0.0, _truth)
    with pytest.raises(UsageError, match="a score and a group"):
        joint_miss(_cascade(), [], [], _truth, [])
