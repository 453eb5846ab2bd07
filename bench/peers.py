"""The same sweep by other libraries, as their documentation does it. What can be prepared once is not timed, in their favour."""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from auditgap.models import Model

__all__ = ["Peer", "naive_loop", "pyvene", "transformer_lens"]

Cells = Sequence[tuple[int, int]]
"""(layer, position) of each patch."""


class Peer(NamedTuple):
    """A library's loop over patches of `resid_pre`, denoising."""

    name: str
    version: str
    effects: Callable[[Cells], Tensor]
    """The metric of each patch."""


def naive_loop(model: Model, clean: Tensor, corrupted: Tensor, metric: Callable[[Tensor], Tensor]) -> Peer:
    """A plain forward hook and one forward pass per patch: what all loops amount to."""
    kept: list[Tensor] = []
    handles = [layer.register_forward_pre_hook(lambda _m, args: kept.append(args[0].clone())) for layer in model.layers]
    with torch.inference_mode():
        model.hf(input_ids=clean, use_cache=False)
    for handle in handles:
        handle.remove()

    def effects(cells: Cells) -> Tensor:
        found = []
        for layer, pos in cells:

            def patch(_module: object, args: tuple, layer: int = layer, pos: int = pos) -> tuple:
                x = args[0].clone()
                x[:, pos] = kept[layer][:, pos]
                return (x, *args[1:])

            handle = model.layers[layer].register_forward_pre_hook(patch)
            with torch.inference_mode():
                found.append(metric(model.hf(input_ids=corrupted, use_cache=False).logits[:, -1])[0])
            handle.remove()
        return torch.stack(found)

    return Peer("a loop of hooked forward passes, torch", torch.__version__, effects)


def transformer_lens(model: Model, clean: Tensor, corrupted: Tensor, metric: Callable[[Tensor], Tensor]) -> Peer:
    """TransformerBridge with `generic_activation_patch`, the function behind `get_act_patch_resid_pre`.

    Raises:
        ImportError: it is not installed.
    """
    import importlib.metadata

    import pandas
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    patching.tqdm = lambda rows: rows  # the progress bar is not what is compared
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = model.hf.name_or_path
        eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        bridge = TransformerBridge.boot_transformers(folder, hf_model=eager, tokenizer=model.tokenizer, device="cpu")
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean, prepend_bos=False, names_filter=lambda name: name.endswith("hook_resid_pre"))

    def effects(cells: Cells) -> Tensor:
        with torch.no_grad():
            found = patching.generic_activation_patch(
                bridge,
                corrupted,
                cache,
                lambda logits: metric(logits[:, -1])[0],
                patching.layer_pos_patch_setter,
                "resid_pre",
                index_df=pandas.DataFrame(list(cells), columns=["layer", "pos"]),
            )
        return found[0] if isinstance(found, tuple) else found

    return Peer("TransformerLens", importlib.metadata.version("transformer-lens"), effects)


def pyvene(
    model: Model, clean: Tensor, corrupted: Tensor, metric: Callable[[Tensor], Tensor], *, rerun_source: bool = True
) -> Peer:
    """One `VanillaIntervention` on `block_input` per patch; `rerun_source=False` hands it the clean vector instead.

    Raises:
        ImportError: it is not installed.
    """
    import importlib.metadata

    logging.getLogger().setLevel(logging.ERROR)
    import pyvene as library

    models, keys = [], []
    for layer in range(model.n_layers):
        where = library.RepresentationConfig(layer, "block_input", "pos", 1)
        models.append(library.IntervenableModel(library.IntervenableConfig([where], library.VanillaIntervention), model.hf))
        keys.append(next(iter(models[-1].interventions)))
    kept = [] if rerun_source else _resid_pre(model, clean)

    def effects(cells: Cells) -> Tensor:
        found = []
        for layer, pos in cells:
            with torch.no_grad():
                if rerun_source:
                    _, out = models[layer](
                        {"input_ids": corrupted}, [{"input_ids": clean}], {"sources->base": ([[[pos]]], [[[pos]]])}
                    )
                else:
                    _, out = models[layer](
                        {"input_ids": corrupted},
                        unit_locations={"sources->base": (None, [[[pos]]])},
                        source_representations={keys[layer]: kept[layer][:, pos : pos + 1]},
                    )
            found.append(metric(out.logits[:, -1])[0])
        return torch.stack(found)

    version = importlib.metadata.version("pyvene")
    if rerun_source:
        return Peer("pyvene", version, effects)
    return Peer("pyvene with the source given", version, effects)


def _resid_pre(model: Model, ids: Tensor) -> list[Tensor]:
    kept: list[Tensor] = []
    handles = [layer.register_forward_pre_hook(lambda _m, args: kept.append(args[0].clone())) for layer in model.layers]
    with torch.no_grad():
        model.hf(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return kept
