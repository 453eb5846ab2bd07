"""The reference agent in four parts - model, tools, middleware, policy - so that two releases of it can differ in one of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from auditgap.incidents.releases import Assembled, Release
from auditgap.records.incident import Component
from auditgap.release.agent import CONTROLS, SERVER, Policy, ReferenceStack, Tools
from auditgap.release.agent.context import CONTEXT_SCHEMA
from auditgap.release.capture import component
from auditgap.release.capture.component import manifest
from auditgap.release.cases import Agent, System

__all__ = ["Model", "Policy", "Tools", "reference_release"]

_TOOLS, _POLICY = Tools(), Policy()


@dataclass(frozen=True)
class Model:
    """Who makes the calls; without an agent, the worst calls of the stimulus."""

    id: str = "scripted"
    agent: Agent | None = None


def reference_release(
    name: str,
    *,
    model: Model = Model(),
    tools: Tools = _TOOLS,
    middleware: Collection[str] = tuple(CONTROLS),
    policy: Policy = _POLICY,
) -> Release:
    """A release of the reference agent, with the manifest that follows from its parts."""
    found = [
        component("model", "main", {"id": model.id}, source=name),
        component("server", SERVER, {"name": SERVER, "version": tools.version}, source=name),
        component("authorisation", "main", _policy(policy), source=name),
        component("context_schema", "main", CONTEXT_SCHEMA, source=name),
    ]
    found += [component("tool", f"{SERVER}/{tool['name']}", tool, source=name) for tool in tools.definitions]
    found += [component("middleware", control, {"config": None}, source=name, order=n) for n, control in enumerate(middleware)]
    parts: dict[Component, object] = {"model": model, "tool": tools, "middleware": tuple(middleware), "policy": policy}
    return Release(manifest(name, "declared", found), parts, _assemble)


def _assemble(parts: Mapping[Component, object]) -> Assembled:
    tools, policy = cast("Tools", parts["tool"]), cast("Policy", parts["policy"])
    chain = cast("tuple[str, ...]", parts["middleware"])
    system = System(
        "reference-agent",
        {control: CONTROLS[control] for control in chain if control in CONTROLS},  # others are refused by the stack
        lambda injector, folder, without, stimulus: ReferenceStack(
            injector,
            folder,
            without,
            user=stimulus.user,
            approver=stimulus.approver,
            toolset=tools,
            chain=chain,
            policy=policy,
        ),
    )
    return Assembled(system, cast("Model", parts["model"]).agent)


def _policy(policy: Policy) -> dict[str, JsonValue]:
    directory: dict[str, JsonValue] = {
        user: {"tenant": tenant, "roles": [*sorted(roles)]} for user, (tenant, roles) in sorted(policy.directory.items())
    }
    return {"directory": directory, "watch_list": [*sorted(policy.watch_list)]}
