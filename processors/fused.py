"""Norms and rotary embedding that the operator computes in the place of a stock processor's code.

On a GPU the operator does both in the pass that packs queries and keys. So the stock code gets the
attention module without its norms, and no rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ajour.prologue import Norm, Prologue, Rope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

RMS_NORMS = ("torch.nn.modules.normalization.RMSNorm", "diffusers.models.normalization.RMSNorm")


@dataclass(frozen=True)
class Fusion:
    """How the stock code of a family normalises and rotates.

    Args:
        text_first: whether text comes before images, or video, where the layer has a norm of its
            own for text.
        argument: name of the stock processor's argument that holds the rotation.
        tables: what makes cosines and sines of that argument, (tokens, head_dim) each, see `Rope`;
            None if it holds these. The first token is the first that is rotated.
    """

    text_first: bool = False
    argument: str = "image_rotary_emb"
    tables: Callable[[Any], tuple[torch.Tensor, torch.Tensor]] | None = None

    def take(self, attn: Any, arguments: dict[str, Any]) -> tuple[Any, Prologue]:
        """Take norms and rotation out of a call of the stock code.

        Args:
            attn: the attention module.
            arguments: arguments of the stock processor by name; that of the rotation is removed.

        Returns:
            The module to give to the stock code, and what is left to the operator. A norm that the
            operator cannot compute stays with the module.
        """
        x, text = arguments["hidden_states"], arguments.get("encoder_hidden_states")
        kinds: tuple[str, ...] = ("norm_{}",)
        split = 0
        if text is not None and getattr(attn, "add_q_proj", None) is not None:
            kinds, split = ("norm_{}", "norm_added_{}"), x.shape[1]
            if self.text_first:
                kinds, split = kinds[::-1], text.shape[1]
        taken: list[str] = []
        norms: list[Norm | None] = []
        for part in ("q", "k"):
            names = [kind.format(part) for kind in kinds]
            norm = norm_of([getattr(attn, name) for name in names], split, x.device)
            norms.append(norm if isinstance(norm, Norm) else None)
            taken += names if isinstance(norm, Norm) else []
        rotation = arguments.pop(self.argument, None)
        rope = None
        if rotation is not None:
            cosines, sines = rotation if self.tables is None else self.tables(rotation)
            rope = Rope(cosines.to(x.device), sines.to(x.device))
        return WithoutNorms(attn, taken), Prologue(norms[0], norms[1], rope)


class WithoutNorms:
    """An attention module for stock code; its norms of these names do nothing."""

    def __init__(self, attn: Any, names: Sequence[str]) -> None:
        self._attn = attn
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return unchanged if name in self._names else getattr(self._attn, name)


def unchanged(x: torch.Tensor) -> torch.Tensor:
    """What stands in for a norm."""
    return x


def norm_of(modules: Sequence[Any], split: int, device: torch.device) -> Norm | str | None:
    """The norm that modules compute on one or two streams of tokens, for the operator.

    Args:
        modules: the streams' norms in token order, None for a stream without a norm.
        split: the first token of the second stream.
        device: where the tokens are.

    Returns:
        The norm, None if no stream has one, or why the operator cannot compute it.
    """
    if all(module is None for module in modules):
        return None
    for module in modules:
        reason = obstacle(module, device)
        if reason is not None:
            return reason
    first, *others = modules
    if not others:
        return Norm(first.weight, first.eps)
    if others[0].eps != first.eps:
        return "the two streams' norms have a different eps"
    return Norm(first.weight, first.eps, others[0].weight, split)


def obstacle(module: Any, device: torch.device) -> str | None:
    """Why the operator cannot compute a norm in its module's place, or None."""
    if module is None:
        return "one of the streams has no norm"
    kind = type(module)
    if f"{kind.__module__}.{kind.__qualname__}" not in RMS_NORMS:
        return f"{kind.__name__} is not a known RMS norm"
    # A pipeline's device_map puts a hook of accelerate's on every module, which offloads nothing.
    hook = module.__dict__.get("_hf_hook")
    if "forward" in module.__dict__ and getattr(hook, "offload", True):
        return "a hook replaces the norm's forward pass, as hooks for offloading do"
    if module._forward_pre_hooks or module._forward_hooks:
        return "the norm has hooks, and may hold its weight only while it runs"
    if module.weight is None or getattr(module, "bias", None) is not None:
        return "the norm has no weight, or a bias too"
    if module.eps is None:
        return "the norm's eps depends on the dtype"
    if module.weight.device != device:
        return f"the norm's weight is on {module.weight.device}"
    return None
