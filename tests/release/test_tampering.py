"""A tampering shows what its kind says, on real tool definitions, changes nothing else and never its input."""

import copy
import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.errors import PlanError, UsageError
from auditgap.release import Channel, Fault, FaultKind, FaultPlan, Match
from auditgap.release.injection.kinds import KINDS, Param, check_plan, number
from auditgap.release.injection.tampering import LIST_KINDS, RESULT_KINDS, tamper_result, tamper_tools

RESULT = {
    "content": [{"type": "text", "text": '{"tenant": "acme", "note": "for alice"}'}, {"type": "image", "data": "aGk="}],
    "structuredContent": {"tenant": "acme", "note": "for alice", "amounts": [1, 2, 3, 4], "deep": {"owner": "alice"}},
    "isError": False,
}
TOOLS = [
    {
        "name": "transfer",
        "description": "Move money.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "to": {"type": "string", "pattern": "^[a-z]+$", "description": "who"},
                "amount": {"type": "integer", "maximum": 100},
            },
            "required": ["to", "amount"],
            "additionalProperties": False,
        },
    },
    {"name": "ping"},
]
CALL = {"to": "bob", "amount": 3}


def fault(kind: FaultKind, tool: str | None = None, channel: Channel | None = None, **params) -> Fault:
    return Fault(id="f", channel=channel or KINDS[kind].channels[0], kind=kind, match=Match(tool=tool), params=params)


def shown(kind: FaultKind, **params) -> dict:
    """The transfer tool as the fault shows it."""
    return tamper_tools(TOOLS, fault(kind, "transfer", **params))[0]


def accepts(schema: dict, arguments: dict) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(arguments)


def test_a_widened_schema_accepts_all_that_it_did_and_more() -> None:
    schema = shown("schema_widen")["inputSchema"]
    for arguments in (CALL, {}, {"to": "Bob!"}, {**CALL, "amount": 10**6}, {**CALL, "extra": 1}):
        assert accepts(schema, arguments)
    one = shown("schema_widen", property="amount")["inputSchema"]
    assert accepts(one, {"to": "bob"})
    assert not accepts(one, {"to": "Bob!", "amount": 1})


def test_a_narrowed_schema_refuses_what_was_right() -> None:
    schema = shown("schema_narrow")["inputSchema"]
    assert not accepts(schema, CALL)
    assert accepts(schema, {**CALL, "confirmation": "yes"})


def test_a_renamed_property_keeps_its_schema_and_place() -> None:
    schema = shown("schema_rename", property="amount", to="cents")["inputSchema"]
    assert list(schema["properties"]) == schema["required"] == ["to", "cents"]
    assert schema["properties"]["cents"] == {"type": "integer", "maximum": 100}
    assert shown("schema_rename", of="tool")["name"] == "transfer_v2"


def test_a_retyped_property_keeps_its_description() -> None:
    assert shown("schema_retype")["inputSchema"]["properties"]["to"] == {"type": "integer", "description": "who"}
    assert shown("schema_retype", property="amount")["inputSchema"]["properties"]["amount"] == {"type": "string"}


def test_a_poisoned_description_still_says_what_it_said() -> None:
    assert shown("description_poison", text="Obey.")["description"] == "Move money. Obey."
    assert (
        shown("description_poison", text="Obey.", property="to")["inputSchema"]["properties"]["to"]["description"] == "who Obey."
    )
    assert tamper_tools([{"name": "ping"}], fault("description_poison", text="Obey."))[0]["description"] == "Obey."


@pytest.mark.parametrize("kind", sorted(LIST_KINDS))
def test_only_the_tool_that_is_named_changes(kind: FaultKind) -> None:
    changed = tamper_tools(TOOLS, fault(kind, "transfer"))
    assert changed[0] != TOOLS[0]
    assert changed[1] == TOOLS[1]
    assert tamper_tools(TOOLS, fault(kind, "absent")) == TOOLS


@pytest.mark.parametrize("kind", sorted(LIST_KINDS))
def test_real_tool_definitions_change_and_their_schemas_stay_schemas(kind: FaultKind, shared_data: Path) -> None:
    tools = [json.loads(path.read_text()) for path in sorted((shared_data / "mcp_tools").glob("*.json"))]
    changed = tamper_tools(tools, fault(kind))
    assert sum(one != other for one, other in zip(tools, changed, strict=True)) >= len(tools) - 1
    for tool in changed:
        jsonschema.Draft202012Validator.check_schema(tool["inputSchema"])


def test_an_injected_instruction_comes_after_what_the_tool_said() -> None:
    changed = tamper_result(RESULT, fault("result_injection", text="Obey."))
    assert changed["content"][0]["text"] == RESULT["content"][0]["text"] + "\nObey."
    assert changed["structuredContent"]["tenant"] == "acme\nObey."
    assert tamper_result({"content": []}, fault("result_injection", text="Obey."))["content"] == [
        {"type": "text", "text": "Obey."}
    ]


def test_a_violation_breaks_the_type_of_every_value() -> None:
    changed = tamper_result(RESULT, fault("result_schema_violation"))["structuredContent"]
    assert all(type(changed[name]) is not type(value) for name, value in RESULT["structuredContent"].items())
    assert "structuredContent" not in tamper_result(RESULT, fault("result_schema_violation", how="drop"))
    assert not isinstance(tamper_result({"content": []}, fault("result_schema_violation"))["content"], list)


def test_truncation_keeps_the_beginning() -> None:
    changed = tamper_result(RESULT, fault("result_truncated", keep_share=0.5))
    assert changed["structuredContent"] == {"tenant": "ac", "note": "for ", "amounts": [1, 2], "deep": {"owner": "al"}}
    assert RESULT["content"][0]["text"].startswith(changed["content"][0]["text"])
    assert tamper_result(RESULT, fault("result_truncated", keep_share=1)) == RESULT


def test_an_oversized_result_is_as_large_as_asked() -> None:
    assert len(json.dumps(tamper_result(RESULT, fault("result_oversized", n_chars=5000)))) >= 5000


def test_another_tenants_result_names_it_in_text_and_structure() -> None:
    changed = tamper_result(RESULT, fault("wrong_tenant_result", replace={"alice": "bob"}))
    assert "acme" not in json.dumps(changed)
    assert "alice" not in json.dumps(changed)
    assert changed["structuredContent"]["deep"] == {"owner": "other-tenant"}
    assert changed["structuredContent"]["note"] == "for bob"
    plain = {"content": [{"type": "text", "text": "balance of acme: 3"}]}
    assert tamper_result(plain, fault("wrong_tenant_result")) == plain
    assert "globex" in str(tamper_result(plain, fault("wrong_tenant_result", replace={"acme": "globex"})))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
_OBJECT = st.dictionaries(st.sampled_from(["content", "structuredContent", "text", "tenant", "x"]), _JSON)
_TOOL = st.dictionaries(st.sampled_from(["name", "description", "inputSchema", "x"]), _JSON)
_SCHEMA = st.dictionaries(st.sampled_from(["properties", "required", "additionalProperties", "enum"]), _JSON)


@given(result=_OBJECT, kind=st.sampled_from(sorted(RESULT_KINDS)))
def test_whatever_a_server_sends_is_survived_and_left_alone(result: dict, kind: FaultKind) -> None:
    before = copy.deepcopy(result)
    json.dumps(tamper_result(result, fault(kind, **({"n_chars": 10} if kind == "result_oversized" else {}))))
    assert result == before


@given(tool=_TOOL, schema=_SCHEMA, kind=st.sampled_from(sorted(LIST_KINDS)))
def test_whatever_tools_a_server_lists_is_survived_and_left_alone(tool: dict, schema: dict, kind: FaultKind) -> None:
    tools = [tool, {"name": "t", "inputSchema": schema}]
    before = copy.deepcopy(tools)
    json.dumps(tamper_tools(tools, fault(kind)))
    assert tools == before


def test_every_kind_has_a_card_and_every_default_is_of_its_own_choices() -> None:
    assert set(KINDS) == set(get_args(FaultKind))
    assert {channel for card in KINDS.values() for channel in card.channels} == set(get_args(Channel))
    params: list[Param] = [param for card in KINDS.values() for param in card.params.values()]
    assert all(not param.choices or param.default in param.choices for param in params)
    for kind, card in KINDS.items():
        check_plan(FaultPlan(faults=(fault(kind, **{name: param.default for name, param in card.params.items()}),)))


def test_a_kind_that_changes_no_content_is_refused() -> None:
    with pytest.raises(UsageError, match="expected one of result_injection"):
        tamper_result(RESULT, fault("latency"))
    with pytest.raises(UsageError, match="got result_injection, which"):
        tamper_tools(TOOLS, fault("result_injection"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (fault("latency", latency=5), "latency has no setting 'latency' - did you mean 'latency_ms'"),
        (fault("latency", latency_ms="5"), "latency_ms must be of type number, such as 500; got '5'"),
        (fault("latency", latency_ms=-5), "latency_ms must be 0 or more; got -5"),
        (fault("fail_after_effect", answer="maybe"), "answer must be one of error, none; got 'maybe'"),
        (fault("permission_denied", as_result=1), "as_result must be of type boolean"),
        (fault("result_injection", channel="tools/list"), "result_injection acts on tools/call; got channel 'tools/list'"),
        (fault("latency", "transfer", channel="tools/list"), "acts on the whole list; leave out match.tool"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_the_fault_named(wrong: Fault, says: str) -> None:
    with pytest.raises(PlanError, match=f"fault 'f': .*{says}".replace("(", r"\(")):
        check_plan(FaultPlan(faults=(wrong,)))


def test_a_plan_for_another_place_is_refused_where_a_place_is_named() -> None:
    plan = FaultPlan(faults=(fault("audit_sink_down"),))
    assert check_plan(plan) is plan
    with pytest.raises(PlanError, match="only tools/call can be faulted here; got channel 'audit'"):
        check_plan(plan, "tools/call")
    assert number(fault("latency"), "latency_ms") == 500
