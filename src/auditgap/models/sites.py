"""The names of the places in the network, and where each is: a map of module paths, found by `solver.py`.

`attn_out.L` and `mlp_out.L` mean what is *added* to the residual stream, coefficient included; `z.L` is the input of the
attention output projection, heads concatenated. `resid_mid.L` exists only where the MLP reads the stream after attention.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from auditgap.errors import UsageError, nearest

__all__ = ["KINDS", "BlockSites", "Site", "SiteMap", "SiteRow", "Write"]

KINDS = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""The kinds of site, in the order in which a block reaches them."""


class Site(NamedTuple):
    """One place in the network, written `kind.layer`."""

    kind: str
    layer: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"


class Write(NamedTuple):
    """A child module of a block whose output enters the residual stream."""

    module: str
    """Path below the block."""
    coefficient: float
    """What the block multiplies the output by before adding it."""
    carries: bool
    """True if the module adds the residual itself, so that its output is the stream after the write."""


class BlockSites(NamedTuple):
    """The sites of one block."""

    attn: Write
    mlp: Write
    projection: str | None
    """Path of the attention output projection, whose input is `z`; None if there is no such single module."""
    sequential: bool
    """True if the MLP reads the stream after the attention write, so that `resid_mid` exists."""
    remainder: float
    """max |resid_post - solution| / max |resid_post|."""
    update_remainder: float
    """The same, relative to max |resid_post - resid_pre|: shows a small write hidden behind massive activations."""


class SiteRow(NamedTuple):
    """One line of `auditgap sites MODEL`."""

    site: str
    module: str
    shape: str
    remainder: float


@dataclass(frozen=True, eq=False)
class SiteMap:
    """Every site of a model, as module paths: it holds no module, so it serves every copy of the model."""

    layers_path: str
    blocks: tuple[BlockSites, ...]
    d_model: int
    d_z: int | None
    """Width of `z`: heads times head width; None if there is no `z`."""

    def names(self) -> list[str]:
        """All site names, in the order in which a forward pass reaches them."""
        return [f"{kind}.{layer}" for layer in range(len(self.blocks)) for kind in KINDS if self._exists(Site(kind, layer))]

    def check(self, names: Iterable[str]) -> list[Site]:
        """The sites of those names.

        Raises:
            UsageError: a name is unknown (with the nearest), its layer is out of range, or the architecture has no such site.
        """
        return [self._parse(name) for name in names]

    def describe(self) -> list[SiteRow]:
        """Site, module path, shape and remainder of every site, for people."""
        return [self._row(self._parse(name)) for name in self.names()]

    def _exists(self, site: Site) -> bool:
        block = self.blocks[site.layer]
        return {"resid_mid": block.sequential, "z": block.projection is not None}.get(site.kind, True)

    def _parse(self, name: str) -> Site:
        kind, _, number = name.partition(".")
        if kind not in KINDS or not re.fullmatch(r"\d+", number):
            hint = nearest(kind, KINDS) if kind not in KINDS else ""
            raise UsageError(f"expected a site such as resid_post.0 ({', '.join(KINDS)}), got '{name}'{hint}")
        site = Site(kind, int(number))
        if site.layer >= len(self.blocks):
            n = len(self.blocks)
            raise UsageError(
                f"layer {site.layer} asked in '{name}', the model has {n} (0-{n - 1}); did you mean '{kind}.{n - 1}'?"
            )
        if not self._exists(site):
            reason = {
                "resid_mid": "attention and MLP of this block read the same stream in parallel; use resid_pre or resid_post",
                "z": "this block has no single attention output projection; use attn_out",
            }[kind]
            raise UsageError(f"'{name}' does not exist here: {reason}")
        return site

    def _row(self, site: Site) -> SiteRow:
        block, path = self.blocks[site.layer], f"{self.layers_path}.{site.layer}"
        module = {
            "resid_pre": f"{path} (input)",
            "z": f"{path}.{block.projection} (input)",
            "attn_out": _describe_write(path, block.attn),
            "resid_mid": f"{path} (input) + attn_out.{site.layer}",
            "mlp_out": _describe_write(path, block.mlp),
            "resid_post": f"{path} (output)",
        }[site.kind]
        width = self.d_z if site.kind == "z" else self.d_model
        return SiteRow(str(site), module, f"batch pos {width}", block.remainder)


def _describe_write(path: str, write: Write) -> str:
    factor = "" if write.coefficient == 1.0 else f"{write.coefficient:g} * "
    return f"{factor}{path}.{write.module} (output{', less the stream before it' if write.carries else ''})"
