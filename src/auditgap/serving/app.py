"""The routes, their description for machines, and errors that hold no traceback and no prompt."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditgap.release.injection.hosting import is_loopback
from auditgap.serving.answering import Answer, ReaderGone, error_response
from auditgap.serving.replies import ApiError, ChatAnswer, CompletionAnswer, ErrorBody, ModelCard, ModelList
from auditgap.serving.service import Service
from auditgap.serving.tenants import Tenant
from auditgap.serving.wire import Chat, Completion

__all__ = ["make_app"]

_log = logging.getLogger("auditgap.serving")
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_REF = "#/components/schemas/{model}"
_CAUSES = {
    400: "The request is malformed, or asks for what is not supported.",
    401: "The token is nobody's.",
    403: "The token does not allow it.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    429: "No room; see Retry-After.",
    500: "The model failed on this request.",
    503: "Not ready, or cut.",
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody, "description": _CAUSES[status]} for status in statuses}


_STREAM = {"description": "One document, or events with `stream`.", "content": {"text/event-stream": {}}}
_ASKED = {**_errors(400, 401, 404, 408, 413, 415, 429, 500, 503), 200: _STREAM}


def make_app(service: Service) -> FastAPI:
    """The application; everything but health and readiness asks for a token."""
    app = FastAPI(title="auditgap monitor serve", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(ApiError, _told)
    app.add_exception_handler(HTTPException, _told)
    app.add_middleware(_Guard, service=service)
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]

    @app.get("/healthz", responses={200: {"description": "The process answers."}})
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "Not ready, and why."}})
    async def readyz() -> JSONResponse:
        return JSONResponse({"status": service.state}, 200 if service.state == "ready" else 503)

    @app.get("/v1/models", responses=_errors(401))
    async def models(request: Request) -> ModelList:
        _known(service, request)
        return ModelList(data=[_card(service)])

    @app.get("/v1/models/{name:path}", responses=_errors(401, 404))
    async def model(name: str, request: Request) -> ModelCard:
        _known(service, request)
        if name != service.settings.name:
            message = f"no model '{name[:100]}' here; it is '{service.settings.name}'"
            raise ApiError(404, message, type="invalid_request_error", code="model_not_found", param="model")
        return _card(service)

    @app.get("/metrics", response_class=Response, responses=_errors(401, 403) | {200: {"content": {_METRICS: {}}}})
    async def metrics(request: Request) -> Response:
        _operator(service, request)
        return Response(service.telemetry.exposition(), media_type=_METRICS)

    @app.get("/openapi.json", responses=_errors(401))
    async def openapi(request: Request) -> dict[str, Any]:
        _known(service, request)
        return app.openapi()

    @app.post("/v1/chat/completions", response_model=ChatAnswer, responses=_ASKED, openapi_extra=_body_of(Chat))
    async def chat() -> Response:
        return Answer(service, Chat)

    @app.post("/v1/completions", response_model=CompletionAnswer, responses=_ASKED, openapi_extra=_body_of(Completion))
    async def complete() -> Response:
        return Answer(service, Completion)

    return app


def _known(service: Service, request: Request) -> Tenant:
    return service.tenant(request.headers.get("authorization"))


def _operator(service: Service, request: Request) -> None:
    if not _known(service, request).operator:
        message = "the metrics are of all tenants together; this token may not read them (operator=yes)"
        raise ApiError(403, message, type="permission_error", code="not_operator")


def _card(service: Service) -> ModelCard:
    return ModelCard(id=service.settings.name, created=service.started_at)


class _Guard:
    """Around every route: an unexpected error leaves its type in the log and a plain 500; nothing that anyone wrote.

    Where authentication is off, a page in somebody's browser must not get in by a name that leads to this machine.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if self._service.is_open and not _is_local(scope):
                error = ApiError(403, "expected a loopback name in 'Host'", type="permission_error", code="foreign_host")
                return await error_response(error)(scope, receive, sending)
            await self._app(scope, receive, sending)
        except (ReaderGone, ClientDisconnect):
            return None
        except Exception as unexpected:  # the last place before the server would log a traceback, which may quote a prompt
            _log.error("%s while answering", type(unexpected).__name__)
            if not started:
                error = ApiError(500, "an unexpected error; it was logged", type="server_error", code="internal_error")
                await error_response(error)(scope, receive, sending)


def _is_local(scope: Scope) -> bool:
    host = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1")
    return is_loopback(host if host.endswith("]") or host.count(":") != 1 else host.partition(":")[0]) or is_loopback(
        host.rpartition(":")[0]
    )


async def _told(_request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error_response(error)
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
    answer = error_response(ApiError(status, str(detail), type="invalid_request_error", code=f"http_{status}"))
    answer.headers.update((error.headers or {}) if isinstance(error, HTTPException) else {})
    return answer


def _body_of(form: type[Chat] | type[Completion]) -> dict[str, Any]:
    """The body is read by hand, after the token was looked at and within the tenant's bounds; so it is described by hand."""
    schema = {"$ref": _REF.format(model=form.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _description(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the forms of bodies that FastAPI does not read itself."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, schemas = models_json_schema([(Chat, "validation"), (Completion, "validation")], ref_template=_REF)
        parts = found["components"]
        parts["schemas"] |= {name: schema for name, schema in schemas["$defs"].items() if name not in parts["schemas"]}
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in found["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in ("/healthz", "/readyz") else [{"token": []}]
        app.openapi_schema = found
    return app.openapi_schema
