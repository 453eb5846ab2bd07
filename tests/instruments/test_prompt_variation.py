"""prompt-variation on models whose answer follows the question alone, or also the word before it, the format or the order."""

from pathlib import Path

import numpy as np
import pytest
from planted_models import BASIS, assert_same_numbers, build, carry, control, read, value, write
from transformers import LlamaForCausalLM

from auditgap.data import PairRow, PairSet, PromptSet
from auditgap.errors import CannotMeasure, PlanError, UsageError
from auditgap.instruments import configure
from auditgap.instruments.behavioural.prompt_variation import Choices, PromptVariation
from auditgap.models import Model
from auditgap.records import Measured, Result

YES, NO = [f"y{i}" for i in range(24)], [f"n{i}" for i in range(24)]
TRUTH, SWAY = BASIS[1], BASIS[2]
QUICK = {
    "formats": ("ask {question}",),
    "options": "{question} or {first} {second}",
    "paddings": ("w0 w3 ", "w3 w4 w5 "),
    "n_resamples": 200,
}


def model(folder: Path, *, swayed_by: str | None = None, sway: float = 0.0, knows: float = 1.0) -> Model:
    """` yes` for `y` words and ` no` for `n` words; one other word, wherever it stands, can pull towards ` no`."""

    def plant(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for words, sign in ((YES, 1.0), (NO, -1.0)):
            for word in words:
                write(hf, ids[word], knows * sign * TRUTH)
        if swayed_by:
            write(hf, ids[swayed_by], sway * TRUTH)
        carry(hf, layer=0, source=TRUTH, target=4.0 * SWAY)
        read(hf, ids["yes"], SWAY)
        read(hf, ids["no"], -SWAY)

    return build(folder, [*YES, *NO, "ask", "or", "please"], plant, n_layers=2)


def row(i: int, wording: str) -> PairRow:
    return PairRow(
        clean=wording.format(YES[i]), corrupted=wording.format(NO[i]), answer=" yes", foil=" no", group=YES[i], split="test"
    )


WORDINGS = ("w6 {}", "w7 {} w8", "{} w9")
DATA = PairSet(name="made", source="made", rows=tuple(row(i, wording) for i in range(24) for wording in WORDINGS))


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model(tmp_path_factory.mktemp("steady"))


@pytest.fixture(scope="module")
def steady_result(steady: Model) -> Result:
    return measure(steady)


def measure(subject: Model, data: PairSet = DATA, **config) -> Result:
    return PromptVariation(**(QUICK | config)).measure(subject, data, seed=0)


# Planted truth


@pytest.mark.parametrize(("swayed_by", "kind"), [("ask", "format"), ("w3", "padding"), ("w9", "paraphrase")])
def test_the_kind_of_variation_that_turns_the_answer_is_named(tmp_path: Path, swayed_by: str, kind: str) -> None:
    r = measure(model(tmp_path, swayed_by=swayed_by, sway=-5.0))
    assert r.verdict == "supported", r.summary
    for other in ("paraphrase", "format", "padding"):
        found = r.measurement(f"flip_rate.{other}")
        assert isinstance(found, Measured)
        assert (found.interval.low > 0.1) == (other == kind), found
    assert value(r, "accuracy.worst_case") < 0.9 and 0.5 < value(r, "agreement") < 1.0
    assert control(r, "identical-repeat").passed and control(r, "competence").passed


def test_the_last_option_named_can_decide(tmp_path: Path) -> None:
    """Both options are named, and the answer is the word that the prompt ends with."""

    def plant(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for word, sign in ((w, s) for words, s in ((YES, 1.0), (NO, -1.0)) for w in words):
            write(hf, ids[word], sign * TRUTH)
        carry(hf, layer=0, source=TRUTH, target=4.0 * SWAY)
        for word, sign in (("yes", 1.0), ("no", -1.0)):
            write(hf, ids[word], 8.0 * sign * BASIS[3])  # read where it is the last word only: nothing carries it
            read(hf, ids[word], sign * (SWAY + 2.0 * BASIS[3]))

    subject = build(tmp_path, [*YES, *NO, "ask", "or"], plant, n_layers=2)
    r = measure(subject)
    assert r.verdict == "supported" and value(r, "flip_rate.order") == 1.0
    assert value(r, "flip_rate.format") == value(r, "flip_rate.paraphrase") == 0.0


# Negative controls


def test_a_steady_model_flips_nowhere(steady_result: Result) -> None:
    r = steady_result
    for kind in ("paraphrase", "order", "format", "padding"):
        found = r.measurement(f"flip_rate.{kind}")
        assert isinstance(found, Measured) and found.value == 0.0 and found.interval.high > 0.1, found
    assert value(r, "agreement") == value(r, "accuracy.plain") == value(r, "accuracy.worst_case") == 1.0
    assert r.verdict == "inconclusive", "24 groups without a flip do not bound four kinds at a tenth"


def test_enough_steady_groups_refute(steady: Model) -> None:
    assert measure(steady, max_flip=0.2).verdict == "refuted"


def test_a_model_that_guesses_is_not_called_fragile(tmp_path: Path) -> None:
    r = measure(model(tmp_path, swayed_by="ask", sway=-5.0, knows=0.0))
    assert not control(r, "competence").passed and r.verdict != "supported"


# Invariance


def test_row_order_and_batch_size_do_not_matter_and_one_seed_gives_one_record(steady: Model, steady_result: Result) -> None:
    assert measure(steady).canonical() == steady_result.canonical()
    reverse = DATA.model_copy(update={"rows": DATA.rows[::-1]})
    assert_same_numbers(steady_result, measure(steady, reverse, batch_size=5), abs_tolerance=1e-9)


# Refusal


def test_what_cannot_be_varied_is_refused(steady: Model) -> None:
    with pytest.raises(CannotMeasure, match="at least 6 groups of questions, got 2"):
        measure(steady, DATA.model_copy(update={"rows": DATA.rows[:6]}))
    single = DATA.model_copy(update={"rows": DATA.rows[::3]})
    with pytest.raises(CannotMeasure, match="no variation is asked for"):
        measure(steady, single, formats=(), options=None, paddings=())
    with pytest.raises(UsageError, match="reads pairs, got a PromptSet"):
        PromptVariation().measure(steady, PromptSet(name="x", source="x", rows=()), seed=0)
    for config, slot in (({"formats": ["Well?"]}, "question"), ({"options": "{question} {first}"}, "second")):
        with pytest.raises(PlanError, match=slot):
            configure("prompt-variation", config)
    r = measure(steady, single, formats=(), options=None)
    assert {m.name for m in r.measurements if m.status == "not_measured"} == {
        "flip_rate.paraphrase",
        "flip_rate.format",
        "flip_rate.order",
    }


# The maths


def test_rates_count_each_group_once() -> None:
    """One group with three wordings of which one is wrong, and five of one row: by hand."""
    rows = [row(0, wording) for wording in WORDINGS] + [row(i, WORDINGS[0]) for i in range(1, 6)]
    plain = np.ones(16)
    plain[2] = 0.0  # the clean item of the third wording
    none = np.zeros((0, 16))
    found = PromptVariation(formats=(), options=None, paddings=()).evaluate(
        rows, Choices(plain, none, none, none), plain[:4], range(4), seed=0
    )
    assert value(found, "accuracy.plain") == pytest.approx((5 + (2 / 3 + 1) / 2) / 6)
    paraphrase = found.measurement("flip_rate.paraphrase")
    assert paraphrase.status == "not_measured" and "1 groups hold more than one row" in paraphrase.reason
    assert found.verdict == "inconclusive", "no kind was measured, so nothing is refuted"
    many = [row(i, wording) for i in range(6) for wording in WORDINGS]
    plain = np.ones(36)
    plain[2] = 0.0
    none = np.zeros((0, 36))
    found = PromptVariation(formats=(), options=None, paddings=()).evaluate(
        many, Choices(plain, none, none, none), plain[:4], range(4), seed=0
    )
    assert value(found, "flip_rate.paraphrase") == pytest.approx(2 / 3 / 2 / 6), "two of three pairs of wordings, in one half"
    assert value(found, "agreement") == pytest.approx(1 - 2 / 3 / 2 / 6)
