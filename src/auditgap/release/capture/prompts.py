"""Prompts and templates as a model will see them: aliases resolved, templates rendered in a sandbox."""

import datetime as dt
import json
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import JsonValue

from auditgap.errors import DataError, PlanError, nearest
from auditgap.governance.document import read
from auditgap.records import digest_of
from auditgap.release.capture.declaration import Model, Prompt
from auditgap.release.capture.files import Read, parse_json, read_bytes, text_of

__all__ = ["CANARY", "chat_template_text", "is_alias", "pinned_model", "prompt_source", "render_chat", "render_prompt"]

CANARY: tuple[dict[str, str], ...] = (
    {"role": "system", "content": "You are a careful assistant."},
    {"role": "user", "content": "Name one river.\nOnly the name."},
    {"role": "assistant", "content": "Elbe"},
    {"role": "user", "content": '  And <b>one</b> "lake"? {{ 1 + 1 }}'},
)
"""The conversation on which chat templates are compared: two turns, leading blanks, markup, braces."""

_ALIASES = frozenset(
    ("champion", "current", "default", "dev", "head", "latest", "live", "main", "master", "nightly", "prod", "production")
) | frozenset(("stable", "staging", "trunk"))


def is_alias(name: str) -> bool:
    """True for a name that can point at something else tomorrow: `latest`, `x-latest`, `org/model@main`."""
    words = name.lower().replace(":", "@").replace("/", "@").split("@")
    return words[-1] in _ALIASES or words[-1].endswith(("-latest", "_latest", ".latest"))


def pinned_model(model: Model) -> JsonValue:
    """The name under which a model is called, resolved.

    Raises:
        PlanError: it is an alias, and nothing says what is behind it.
    """
    resolved = model.resolves_to or model.id
    if is_alias(resolved):
        raise PlanError(
            f"model '{resolved}' is a mutable alias: tomorrow it may call another one; give the dated name or commit, "
            "or add resolves_to"
        )
    return {"id": resolved} if resolved == model.id else {"alias": model.id, "id": resolved}


def prompt_source(prompt: Prompt, folder: Path) -> tuple[Read, dict[str, JsonValue]]:
    """The template's text, and which registry entry it is.

    Raises:
        PlanError: not exactly one of file and registry, an unknown version, or an alias that nothing resolves.
    """
    if prompt.file is not None and prompt.registry is None:
        if prompt.version is not None and is_alias(prompt.version):
            raise _unresolved(prompt.version)
        return _text(folder / prompt.file), {} if prompt.version is None else {"version": prompt.version}
    if prompt.registry is None or prompt.file is not None or prompt.version is None:
        raise PlanError("system_prompt: expected a file, or a registry and a version in it")
    path = folder / prompt.registry
    document = read(path)
    aliases, versions = (_mapping(document, key, path) for key in ("aliases", "versions"))
    version = aliases.get(prompt.version, prompt.version)
    if version not in versions:
        if is_alias(prompt.version):
            raise _unresolved(prompt.version)
        raise PlanError(f"{path}: no version '{version}'{nearest(version, versions)}")
    entry: dict[str, JsonValue] = {"version": version}
    return _text(path.parent / versions[version]), entry if version == prompt.version else {"alias": prompt.version, **entry}


def render_prompt(template: str, variables: dict[str, JsonValue]) -> str:
    """A system prompt with its variables filled in; without variables it is no template, and is itself.

    Raises:
        DataError: the template is malformed, or a variable is missing.
    """
    if not variables:
        return template
    try:
        return _environment(jinja2.StrictUndefined).from_string(template).render(**variables)
    except jinja2.TemplateError as error:
        raise DataError(f"system_prompt: cannot be rendered: {error}; declare every variable, or fix the template") from None


def render_chat(template: str) -> dict[str, JsonValue]:
    """The canary conversation under a chat template: its digest, or why the template refuses it.

    A template that knows no system role is given the conversation without it, and the result says so.
    """
    environment = _environment()
    environment.globals.update(raise_exception=_refuse, strftime_now=lambda pattern: dt.date(2000, 1, 1).strftime(pattern))
    failures: list[str] = []
    for roles, messages in (("system, user, assistant", CANARY), ("user, assistant", CANARY[1:])):
        try:
            rendered = environment.from_string(template).render(
                messages=messages, add_generation_prompt=True, bos_token="<bos>", eos_token="<eos>"
            )
        except (jinja2.TemplateError, TypeError, ValueError, OverflowError) as error:
            failures.append(str(error))
            continue
        return {"roles": roles, "sha256": digest_of(rendered.encode())}
    return {"refused": failures[-1]}


def chat_template_text(path: Path) -> Read:
    """A chat template from its own file, or from the tokenizer_config.json that holds it.

    Raises:
        DataError: the file holds none.
    """
    found = _text(path)
    if path.suffix != ".json":
        return found
    document = parse_json(str(found.value), where=str(path))
    template = document.get("chat_template") if isinstance(document, dict) else None
    if not isinstance(template, str):
        raise DataError(f"{path}: expected a chat_template of type text, got {type(template).__name__}; name the Jinja file")
    return Read(template, digest_of(template.encode()), f"{path.name}#chat_template")


def _environment(undefined: type[jinja2.Undefined] = jinja2.Undefined) -> ImmutableSandboxedEnvironment:
    """As transformers renders chat templates."""
    environment = ImmutableSandboxedEnvironment(
        undefined=undefined, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    return environment


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _text(path: Path) -> Read:
    data = read_bytes(path)
    return Read(text_of(data, path), digest_of(data), path.name)


def _mapping(document: object, key: str, path: Path) -> dict[str, str]:
    found = document.get(key, {}) if isinstance(document, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise PlanError(f"{path}: expected '{key}' to map names to text; put versions in quotes")
    return found


def _unresolved(alias: str) -> PlanError:
    return PlanError(
        f"system_prompt: '{alias}' is a mutable alias and nothing resolves it; name the registry file that maps it to a version"
    )
