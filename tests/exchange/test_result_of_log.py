"""From scores to numbers with intervals, and the controls on the log itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_examples import SUBJECT

from auditgap.errors import UsageError
from auditgap.exchange import Bar, ImportedLog, Metric, measure, result_of
from auditgap.records import Measured
from auditgap.stats import cluster_bootstrap, wilson


def metric(values: list[float], groups: list[str] | None = None, **more: object) -> Metric:
    given = {"name": "match.accuracy", "about": "Mean.", **more}
    return Metric(values=tuple(values), groups=tuple(groups or map(str, range(len(values)))), **given)  # type: ignore[arg-type]


def log(*metrics: Metric, **more: object) -> ImportedLog:
    n = len(metrics[0].values)
    given = {"tool": "garak", "version": "1", "model": "org/stories260K", "task": "t", "n_stated": n, "n_held": n, **more}
    return ImportedLog(metrics=metrics, started_at=None, finished_at=None, packages={}, **given)  # type: ignore[arg-type]


def controls(found: ImportedLog, **more: object) -> dict[str, tuple[bool, bool]]:
    return {c.name: (c.passed, c.fatal) for c in result_of(found, SUBJECT, **more).controls}  # type: ignore[arg-type]


def test_a_rate_has_wilsons_interval() -> None:
    found = measure(metric([1.0] * 7 + [0.0] * 3))
    assert isinstance(found, Measured)
    assert (found.value, found.n, found.unit, found.interval) == (0.7, 10, "rate", wilson(7, 10))


def test_repeats_are_no_independent_units() -> None:
    alone, repeated = measure(metric([1.0, 0.0, 1.0, 1.0])), measure(metric([1.0, 0.0, 1.0, 1.0] * 25, list("abcd") * 25))
    assert isinstance(alone, Measured) and isinstance(repeated, Measured)
    assert (repeated.value, repeated.n) == (alone.value, 4)
    width = [m.interval.high - m.interval.low for m in (alone, repeated)]
    assert width[1] >= width[0], "a hundred rows of four samples are worth four samples"


def test_a_mean_has_a_bootstrap_interval_over_groups() -> None:
    values = list(np.random.default_rng(0).normal(3.0, 1.0, 30))
    found = measure(metric(values))
    assert isinstance(found, Measured) and found.unit == "score"
    again = cluster_bootstrap(lambda rows: float(np.array(values)[rows].mean()), range(30), seed=0)
    assert (found.interval.low, found.interval.high) == pytest.approx((again.low, again.high))
    assert found.interval.low < 3.0 < found.interval.high


def test_pooled_and_grouped_means_differ_where_groups_differ_in_size() -> None:
    values, groups = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    pooled, grouped = measure(metric(values, groups, pooled=True)), measure(metric(values, groups))
    assert isinstance(pooled, Measured) and isinstance(grouped, Measured)
    assert (pooled.value, grouped.value, pooled.n) == (0.75, 0.5, 2)


def test_no_spread_is_no_certainty() -> None:
    same = measure(metric([0.5, 0.5, 0.5]))
    assert isinstance(same, Measured) and same.interval.low < 0.2 and same.interval.high > 0.8
    assert getattr(measure(metric([2.0, 2.0])), "reason", "").startswith("the mean is 2 over 2 groups of the same mean")
    assert getattr(measure(metric([3.0])), "reason", "").startswith("the mean is 3 over one group")
    none = measure(metric([0.0] * 20))
    assert isinstance(none, Measured) and none.interval.high == pytest.approx(0.161, abs=0.001)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from([0.0, 1.0, 0.5, 7.0, -2.0])), min_size=1, max_size=20),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_the_interval_holds_the_value_and_order_does_not_matter(rows: list, pooled: bool, random) -> None:
    def of(pairs: list) -> object:
        ordered = sorted(pairs)
        return measure(metric([v for _, v in ordered], [g for g, _ in ordered], pooled=pooled))

    found = of(rows)
    if isinstance(found, Measured):
        assert found.interval.low - 1e-9 <= found.value <= found.interval.high + 1e-9
        assert found.n == len({group for group, _ in rows})
    random.shuffle(rows)
    assert of(rows) == found


def test_a_sound_log_passes_every_control_and_concludes_nothing() -> None:
    result = result_of(log(metric([1.0, 0.0], stated=0.5)), SUBJECT)
    assert all(control.passed for control in result.controls) and result.verdict == "inconclusive"
    assert "No bar was given" in result.summary


def test_a_headline_that_its_samples_contradict_is_measured_and_fatal() -> None:
    found = log(metric([1.0, 0.0, 0.0, 0.0], stated=0.75))
    result = result_of(found, SUBJECT, bars=[Bar("match.accuracy", "<=", 1.0)])
    discrepancy = result.measurement("headline_discrepancy")
    assert isinstance(discrepancy, Measured) and discrepancy.value == 0.5
    assert result.verdict == "invalid" and controls(found)["headline-matches-samples"] == (False, True)
    assert "match.accuracy is stated as 0.75, its 4 scores give 0.25" in result.summary


@pytest.mark.parametrize(("stated", "passes"), [(0.5 + 1e-7, True), (0.5 - 1e-7, True), (0.5 + 1e-5, False)])
def test_rounding_in_print_is_no_contradiction(stated: float, passes: bool) -> None:
    assert controls(log(metric([1.0, 0.0], stated=stated)))["headline-matches-samples"][0] is passes


def test_without_samples_the_headline_is_unchecked_but_not_contradicted() -> None:
    empty = Metric(name="a", about="x", stated=0.9, missing="no samples")
    found = log(empty, n_stated=10, n_held=0)
    assert controls(found)["headline-matches-samples"] == (False, False)
    assert controls(found)["samples-complete"] == (False, False)
    bars = [Bar("a", ">=", 0.1)]
    assert result_of(found, SUBJECT, bars=bars).verdict == "inconclusive", "a number that was not computed again clears no bar"


@pytest.mark.parametrize(
    ("change", "control", "fatal"),
    [
        ({"model": "openai/gpt-4o"}, "subject-named-in-log", True),
        ({"withdrawn": "it is marked as invalidated"}, "log-not-withdrawn", True),
        ({"unfinished": "its status is 'error'"}, "run-finished", False),
        ({"n_stated": 3}, "samples-complete", False),
        ({"n_stated": None}, "samples-complete", False),
    ],
)
def test_what_is_wrong_with_a_log_fails_its_control_and_no_other(change: dict, control: str, fatal: bool) -> None:
    found = log(metric([1.0, 0.0], stated=0.5), **change)
    assert {name: fatal for name, (passed, fatal) in controls(found).items() if not passed} == {control: fatal}
    assert (result_of(found, SUBJECT).verdict == "invalid") is fatal


@pytest.mark.parametrize(
    "name", ["stories260K", "hf/stories260k", "C:\\models\\Stories260K", "huggingface:text:org/stories260K/"]
)
def test_a_path_or_provider_before_the_name_does_not_matter(name: str) -> None:
    assert controls(log(metric([1.0]), model=name))["subject-named-in-log"][0]


@pytest.mark.parametrize("name", ["stories260K-instruct", "my-stories260K", "", "stories"])
def test_a_similar_name_is_another_model(name: str) -> None:
    assert not controls(log(metric([1.0]), model=name))["subject-named-in-log"][0]


def test_an_alias_must_be_the_logs_own_name_and_a_commit_must_agree() -> None:
    found = log(metric([1.0]), model="prod-7")
    assert controls(found, alias="prod-7")["subject-named-in-log"][0]
    assert not controls(found, alias="prod-8")["subject-named-in-log"][0]
    pinned = SUBJECT.model_copy(update={"revision": "a" * 40})
    other = result_of(log(metric([1.0]), revision="b" * 40), pinned)
    assert other.verdict == "invalid" and "commit" in str(other.controls)


@pytest.mark.parametrize(
    ("bar", "verdict"),
    [("match.accuracy>=0.5", "supported"), ("match.accuracy >= 0.95", "refuted"), ("match.accuracy>0.8", "inconclusive"),
     ("match.accuracy<=0.5", "refuted"), ("match.accuracy<0.95", "supported")],
)  # fmt: skip
def test_the_whole_interval_must_clear_the_bar(bar: str, verdict: str) -> None:
    found = log(metric([1.0] * 80 + [0.0] * 20, stated=0.8))
    assert result_of(found, SUBJECT, bars=[Bar.parse(bar)]).verdict == verdict


def test_one_refuted_bar_refutes_and_one_open_bar_leaves_open() -> None:
    found = log(metric([1.0] * 80 + [0.0] * 20, stated=0.8))

    def verdict(*bars: str) -> str:
        return result_of(found, SUBJECT, bars=[Bar.parse(b) for b in bars]).verdict

    assert verdict("match.accuracy>=0.5", "match.accuracy>=0.79") == "inconclusive"
    assert verdict("match.accuracy>=0.5", "match.accuracy>=0.99") == "refuted"


@pytest.mark.parametrize(
    "written", ["", "accuracy", "accuracy=0.9", "accuracy>=", ">=0.9", "accuracy>=x", "a>=1e999", "a>=1 b>=2"]
)
def test_what_is_no_bar_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match="expected a bar"):
        Bar.parse(written)


def test_a_bar_on_a_number_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no number 'match\.acuracy' - did you mean 'match\.accuracy'"):
        result_of(log(metric([1.0])), SUBJECT, bars=[Bar("match.acuracy", ">=", 0.1)])
