"""Schemathesis reads the OpenAPI description and asks the server what it likes: no 500s, and nothing that is not described."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def served(serve, make):
    with serve([make()], limits={"max_new_tokens": 16}, name="tiny") as found:
        yield found


bounded = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_that_the_description_allows_or_forbids_breaks_the_server(served, path, mode):
    headers = {"Authorization": f"Bearer {served.tokens['alice']}"}
    statuses: list[int] = []

    @bounded
    @given(case=_description(served)[path]["POST"].as_strategy(generation_mode=mode))
    def ask(case):
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = "tiny"  # else all would be 404
        answer = case.call(base_url=served.url, headers=headers, timeout=20)
        case.validate_response(answer, checks=CHECKS)
        statuses.append(answer.status_code)

    ask()
    assert (200 if mode is GenerationMode.POSITIVE else 400) in statuses


def test_the_other_routes_hold_what_is_described(served):
    headers = {"Authorization": f"Bearer {served.tokens['alice']}"}
    for operation in (result.ok() for result in _description(served).get_all_operations()):
        if operation.method == "get":
            case = operation.Case(path_parameters={"name": "tiny"} if "{" in operation.path else {})
            answer = case.call(base_url=served.url, headers=headers, timeout=20)
            case.validate_response(answer, checks=CHECKS)
            assert answer.status_code == 200


def _description(served):
    with served.client() as alice:
        return schemathesis.openapi.from_dict(alice.get("/openapi.json").json())
