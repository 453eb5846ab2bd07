"""A release taken apart into what can be swapped, and put together again with parts of another one."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

from auditgap.errors import UsageError
from auditgap.records.incident import Component
from auditgap.records.integrity import Mode
from auditgap.records.manifest import ReleaseManifest
from auditgap.release.cases import Agent, System
from auditgap.release.loading import load_named

__all__ = ["COMPONENTS", "Assembled", "Release", "load_release", "mixed"]

COMPONENTS: tuple[Component, ...] = get_args(Component)


class Assembled(NamedTuple):
    """A release that can run."""

    system: System
    agent: Agent | None
    """None: the worst calls of the stimulus, in place of a model."""

    @property
    def mode(self) -> Mode:
        """How integrity cases are run on it."""
        return "scripted" if self.agent is None else "live"


@dataclass(frozen=True)
class Release:
    """What ran, as its manifest says, and its parts."""

    manifest: ReleaseManifest
    parts: Mapping[Component, object]
    """Model, tool layer, middleware and policy, in whatever form `assemble` takes."""
    assemble: Callable[[Mapping[Component, object]], Assembled]
    """Puts parts together; two releases whose parts are swapped share it."""

    def __post_init__(self) -> None:
        if missing := [name for name in COMPONENTS if name not in self.parts]:
            raise UsageError(f"release '{self.manifest.name}': expected the parts {', '.join(COMPONENTS)}, got no {missing[0]}")

    @property
    def fingerprint(self) -> str:
        """Of the manifest."""
        return self.manifest.fingerprint()

    def opened(self) -> Assembled:
        """The release as it is."""
        return self.assemble(self.parts)


def mixed(affected: Release, reference: Release, from_reference: Collection[Component]) -> Assembled:
    """The affected release with these components of the reference.

    Raises:
        UsageError: the two are put together in different ways, so their parts cannot be swapped.
    """
    if affected.assemble is not reference.assemble:
        raise UsageError(
            f"releases '{affected.manifest.name}' and '{reference.manifest.name}' are assembled differently, "
            f"so their parts cannot be swapped; give both the same assemble function"
        )
    parts = {name: (reference if name in from_reference else affected).parts[name] for name in COMPONENTS}
    return replace(affected, parts=parts).opened()


def load_release(name: str) -> Release:
    """The release that `package.module:name` names.

    Raises:
        UsageError: there is no such module or name, or it is no release.
    """
    found = load_named(name, what="a release")
    if not isinstance(found, Release):
        raise UsageError(f"expected package.module:name of a Release, got '{name}' ({type(found).__name__})")
    return found
