"""attribution-graph against a model in which one head carries the answer, set by hand, and one that holds it back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_models import BASIS, FILLERS, build, carry, read, write

from auditgap.data import ContrastSet, PairRow, PairSet
from auditgap.errors import CannotMeasure, DataError, SiteError, UsageError
from auditgap.instruments.mechanistic.attribution_graph import AttributionGraph
from auditgap.instruments.mechanistic.attribution_graph.ablation import Cut, cut_targets, faithfulness, random_graphs
from auditgap.instruments.mechanistic.attribution_graph.checks import cut_all
from auditgap.instruments.mechanistic.attribution_graph.consistency import Readout, disagreement
from auditgap.instruments.mechanistic.attribution_graph.graph import Roles, assign_roles, choose, jaccard
from auditgap.instruments.patching.pairs import read_pairs
from auditgap.models import Model, open_model
from auditgap.models.anatomy import Anatomy, find_anatomy
from auditgap.records import Curve, Graph, Grid, Measured, Result

GIRLS, BOYS = [f"g{i}" for i in range(12)], [f"b{i}" for i in range(12)]
SPLITS = ("train", "val", "train", "test")
FAST = {"n_resamples": 200, "min_gap": 0.5, "n_random": 19, "batch_size": 256}
TRANSPORT, BRAKE = 1, 3  # layers whose head 0 carries the mark to the last token, and writes against the answer


def value(result: Result, name: str) -> float:
    found = result.measurement(name)
    assert isinstance(found, Measured), found
    return found.value


def control(result: Result, name: str) -> bool:
    return next(c.passed for c in result.controls if c.name == name)


def grid(result: Result, name: str) -> tuple[Grid, np.ndarray]:
    figure = next(figure for figure in result.figures if figure.name == name)
    assert isinstance(figure, Grid)
    return figure, np.array(figure.values)


def carries_a_mark(hf, ids: dict[str, int]) -> None:
    for girl, boy in zip(GIRLS, BOYS, strict=True):
        write(hf, ids[girl], BASIS[1])
        write(hf, ids[boy], -BASIS[1])
    carry(hf, layer=TRANSPORT, source=BASIS[1], target=8 * BASIS[2])
    read(hf, ids["yes"], 2 * BASIS[2])
    read(hf, ids["no"], -2 * BASIS[2])


def holds_back(hf, ids: dict[str, int]) -> None:
    """The same, and after the word `stop` head 0 of the last layer writes `no`, whatever was found."""
    carries_a_mark(hf, ids)
    write(hf, ids["stop"], BASIS[3])
    carry(hf, layer=BRAKE, source=BASIS[3], target=-20 * BASIS[2])


def pair(i: int, **changed: str) -> PairRow:
    """A girl's name in one prompt and a boy's in the other; every second pair is the other way round."""
    template = " ".join([*FILLERS[: 1 + i % 3 // 2], "{}", *FILLERS[4:6], FILLERS[i % 12]])
    girl, boy = (template.replace("{}", names[i % 12]) for names in (GIRLS, BOYS))
    sides = {"clean": girl, "corrupted": boy, "answer": "yes", "foil": "no"}
    if i % 2:
        sides = {"clean": boy, "corrupted": girl, "answer": "no", "foil": "yes"}
    return PairRow(**(sides | {"group": f"pair {i:02}", "split": SPLITS[i % 4]} | changed))


def pairs(rows: list[PairRow]) -> PairSet:
    return PairSet(name="made", source="made.jsonl", rows=tuple(rows))


ROWS = [pair(i) for i in range(24)]
DATA = pairs(ROWS)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build(tmp_path_factory.mktemp("carries"), [*GIRLS, *BOYS], carries_a_mark)


@pytest.fixture(scope="module")
def found(planted: Model) -> Result:
    return AttributionGraph(n_nodes=2, **FAST).measure(planted, DATA, seed=0)


# Planted truth


def test_two_nodes_are_the_whole_mechanism(found: Result) -> None:
    assert found.verdict == "supported"
    figure, edges = grid(found, "edges")
    assert figure.rows == ("embedding @ difference end", f"head {TRANSPORT}.0 @ prompt end")
    assert edges[0].tolist()[1:] == pytest.approx([1, 0], abs=0.05)  # the name reaches the head, not the target
    assert edges[1].tolist()[1:] == pytest.approx([0, 1], abs=0.05)  # the head reaches the target
    drawing = next(figure for figure in found.figures if isinstance(figure, Graph))
    ends = {(drawing.nodes[edge.source].label, drawing.nodes[edge.target].label) for edge in drawing.edges}
    assert ends == {("emb", "h0"), ("h0", "answer less foil")}, "the mechanism is what is drawn"
    assert value(found, "faithfulness") == pytest.approx(1, abs=0.1)
    assert value(found, "faithfulness.mean_ablation") == pytest.approx(1, abs=0.1)
    assert value(found, "destroyed") == pytest.approx(1, abs=0.1)
    assert value(found, "faithfulness.random") < 0.1
    assert value(found, "stability.jaccard") == 1
    assert value(found, "error_share") < 0.1
    assert set(found.properties) >= {
        "intervention", "necessity", "sufficiency", "consistency", "held-out", "random-baseline", "two-ablations"
    }  # fmt: skip
    assert all(c.passed for c in found.controls), [c for c in found.controls if not c.passed]


def test_the_sum_is_complete_to_float_tolerance(found: Result) -> None:
    observed = {c.name: c.observed for c in found.controls}
    for name in ("completeness.direct", "completeness.all-paths", "gap-parts", "identity-cut", "full-cut"):
        assert isinstance(observed[name], Measured) and observed[name].value < 1e-5


def test_the_figures_show_place_head_and_growth(found: Result) -> None:
    figure, nodes = grid(found, "nodes")
    at = nodes[figure.rows.index(f"attention {TRANSPORT}")]
    assert at[figure.columns.index("prompt end")] == pytest.approx(1, abs=0.05) and np.abs(at).sum() == pytest.approx(1, abs=0.1)
    direct, heads = grid(found, "direct")
    assert direct.columns == ("0", "1", "2", "3", "mlp")
    assert heads[TRANSPORT, 0] > 100 * np.abs(np.delete(heads.ravel(), 5 * TRANSPORT)).max()
    curve = next(figure for figure in found.figures if isinstance(figure, Curve))
    assert curve.x[0] == 1 and curve.y[0] < 0.1 and curve.y[1] > 0.9 and curve.y[-1] == pytest.approx(1, abs=1e-5)
    assert curve.reference[1] < 0.1 and curve.reference[-1] == pytest.approx(1, abs=1e-5)


def test_an_answer_held_back_is_found_and_the_writer_is_named(tmp_path: Path) -> None:
    model = build(tmp_path, [*GIRLS, *BOYS, "stop"], holds_back)
    stopped = [r.model_copy(update={"clean": f"stop {r.clean}", "corrupted": f"stop {r.corrupted}"}) for r in ROWS]
    rows = [stopped[i] if i % 8 in (1, 4, 7) else row for i, row in enumerate(ROWS)]
    result = AttributionGraph(n_nodes=2, **FAST).measure(model, pairs(rows), seed=0)
    held_out = [row for row in rows if row.split in ("val", "test")]
    expected = np.mean([row.clean.startswith("stop") for row in held_out]) / 2  # one of its two prompts calls for `yes`
    assert value(result, "readout.agreement") == 1
    assert value(result, "discrepancy.suppressed") == pytest.approx(expected)
    assert value(result, "discrepancy.unsupported") == 0
    notes = [s for s in result.samples if s.output.startswith("inside")]
    assert notes and all(s.prompt.startswith("stop") and f"head {BRAKE}.0" in s.note for s in notes)


# Negative controls


def test_one_node_too_few_is_refuted(planted: Model) -> None:
    result = AttributionGraph(n_nodes=1, **FAST).measure(planted, DATA, seed=0)
    assert result.verdict == "refuted" and value(result, "faithfulness") < 0.1
    assert not {"sufficiency", "necessity"} & set(result.properties)


def test_a_random_model_has_nothing_to_explain(tmp_path: Path) -> None:
    model = build(tmp_path, [*GIRLS, *BOYS], lambda hf, ids: None)
    with pytest.raises(CannotMeasure, match=r"at least 5 groups of pairs with a gap of 0.5 logits in train.* got 0; 0 of all 24"):
        AttributionGraph(**FAST).measure(model, DATA, seed=0)


def test_scores_without_meaning_are_no_better_than_random_graphs(planted: Model) -> None:
    every = read_pairs(planted, DATA)
    roles = assign_roles(every.first, every.last, every.lengths)
    kinds = ["embedding", *(["head"] * 4 + ["mlp"]) * 4]
    scores = np.random.default_rng(0).standard_normal((len(kinds), len(roles.labels)))
    runs = cut_targets(planted, every, roles, [Cut(choose(scores, 0), keep="rest"), Cut(choose(scores, 0))], batch_size=512)
    cuts = cut_all(planted, every, roles, scores, kinds, *runs, n_nodes=8, n_random=19, batch_size=512, seed=0)
    own, random = (float(faithfulness(cuts.restored(x)).mean()) for x in (cuts.named["graph"], cuts.random))
    assert own <= random + 0.1


def test_a_sum_that_is_not_complete_makes_it_invalid(planted: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets_the_final_norm(model: Model) -> Anatomy:
        whole = find_anatomy(model)
        return Anatomy({name: norm for name, norm in whole.norms.items() if name != "model.norm"}, whole.values)

    monkeypatch.setattr("auditgap.instruments.mechanistic.attribution_graph.find_anatomy", forgets_the_final_norm)
    result = AttributionGraph(n_nodes=2, **FAST).measure(planted, DATA, seed=0)
    assert result.verdict == "invalid" and result.properties == () and not control(result, "completeness.direct")


# Invariance


def test_batch_size_and_row_order_do_not_matter(planted: Model, found: Result) -> None:
    other = AttributionGraph(n_nodes=2, **FAST | {"batch_size": 40}).measure(planted, pairs(ROWS[::-1]), seed=0)
    for one, two in zip(found.measurements, other.measurements, strict=True):
        assert (one.name, one.status) == (two.name, two.status)
        if isinstance(one, Measured) and isinstance(two, Measured):
            assert two.value == pytest.approx(one.value, abs=1e-4), one.name
    assert other.verdict == found.verdict and grid(other, "edges")[0].rows == grid(found, "edges")[0].rows


# Refusal


def test_bad_input_is_refused(planted: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reads pairs, got a ContrastSet"):
        AttributionGraph().measure(planted, ContrastSet(name="x", source="x", rows=(), classes=("a", "b")), seed=0)
    with pytest.raises(DataError, match="equally many tokens"):
        AttributionGraph().measure(planted, pairs([pair(0, corrupted="w1 b1 w2 w3 w4 w5 w6")]), seed=0)
    with pytest.raises(UsageError, match="to be one token"):
        AttributionGraph().measure(planted, pairs([pair(0, answer="yes no")]), seed=0)
    with pytest.raises(ValueError, match="n_nodes"):
        AttributionGraph(n_nodes=0)
    build(tmp_path, [*GIRLS, *BOYS], carries_a_mark)
    with pytest.raises(SiteError, match="open it in float32"):
        AttributionGraph().measure(open_model(tmp_path, dtype="bfloat16"), DATA, seed=0)


# The maths

PLACES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(1, 20)), min_size=1, max_size=6)


@given(PLACES)
def test_every_position_from_the_difference_on_has_one_role(places: list[tuple[int, int, int]]) -> None:
    first = [start for start, _, _ in places]
    last = [start + extra for start, extra, _ in places]
    lengths = [start + extra + tail for start, extra, tail in places]
    roles = assign_roles(first, last, lengths)
    assert len(set(roles.labels)) == len(roles.labels)
    for of, start, end, length in zip(roles.of, first, last, lengths, strict=True):
        assert (of[:start] == -1).all() and (of[start:] >= 0).all() and len(of) == length
        assert roles.labels[of[end]] == "difference end"
        if "prompt end" in roles.labels:
            assert roles.labels[of[-1]] == "prompt end"
    ones = [np.ones((3, length)) for length in lengths]
    expected = [length - start for length, start in zip(lengths, first, strict=True)]
    assert roles.summed(ones).sum(2)[:, 0].tolist() == expected


@given(st.floats(-3, 3))
def test_faithfulness_is_one_only_for_the_same_behaviour(share: float) -> None:
    value = float(faithfulness(np.array([share]))[0])
    assert 0 <= value <= 1 and (value == 1) == (share == 1)
    assert value == pytest.approx(float(faithfulness(np.array([2 - share]))[0]), abs=1e-12)  # too much is as bad as too little


@given(st.integers(0, 2**31), st.integers(0, 12))
def test_random_graphs_have_the_same_make_up(seed: int, n_nodes: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = ["embedding", "head", "head", "mlp", "head", "head", "mlp"]
    graph = choose(rng.standard_normal((7, 3)), n_nodes)
    for drawn in random_graphs(graph, kinds, n_draws=3, rng=rng):
        for kind in ("embedding", "head", "mlp"):
            rows = [i for i, name in enumerate(kinds) if name == kind]
            assert drawn[rows].sum() == graph[rows].sum()
        assert (drawn[0] == graph[0]).all()
        assert 0 <= jaccard(graph, drawn) <= 1 == jaccard(graph, graph) or n_nodes == 0


def test_a_readout_that_is_a_coin_tells_nothing() -> None:
    rng = np.random.default_rng(0)
    inside = np.concatenate([rng.standard_normal((40, 3)), np.ones((40, 1))], axis=1)
    groups = [f"{i}" for i in range(20)]
    told = disagreement(Readout(inside, list(range(10)), list(range(10, 20)), groups))
    assert not told.control.passed and told.depth is None and told.measurements[1].status == "not_measured"
    wrong = disagreement(
        Readout(np.concatenate([inside[:, :3], -inside[:, 3:]], axis=1), list(range(10)), list(range(10, 20)), groups)
    )
    assert "no prompt of train is answered as it calls for" in wrong.summary


def test_roles_of_some_pairs() -> None:
    roles = assign_roles([1, 2], [1, 3], [4, 6])
    assert roles.labels == ("difference start", "difference end", "prompt end-1", "prompt end")
    assert [of.tolist() for of in roles.of] == [[-1, 1, 2, 3], [-1, -1, 0, 1, 2, 3]]
    assert isinstance(roles.take([1]), Roles) and roles.take([1]).of[0].tolist() == [-1, -1, 0, 1, 2, 3]


# A real model


def test_a_real_model_gathers_the_name_and_moves_it_with_the_last_attention(stories: Path) -> None:
    rows = [
        PairRow(
            clean=f"The girl was {mood}. So", corrupted=f"The boy was {mood}. So", answer=" she", foil=" he", group=mood,
            split=SPLITS[i % 4],
        )
        for i, mood in enumerate(("sad", "mad", "bad", "old", "hot", "wet", "new", "lost"))
    ]  # fmt: skip
    result = AttributionGraph(n_nodes=16, min_groups=4, **FAST).measure(open_model(stories), pairs(rows), seed=0)
    assert (
        control(result, "completeness.direct") and control(result, "completeness.all-paths") and control(result, "random-graphs")
    )
    figure, nodes = grid(result, "nodes")
    share = {(row, column): nodes[i, j] for i, row in enumerate(figure.rows) for j, column in enumerate(figure.columns)}
    assert share["attention 4", "prompt end"] > 0.7  # patching found the same: the last layer's attention brings it
    assert share["embedding", "difference end"] > 0.3
    assert value(result, "faithfulness") > value(result, "faithfulness.random") + 0.3
