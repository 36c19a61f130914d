"""What guiders of diffusers look up and set, such as perturbed-attention guidance."""

from __future__ import annotations

from typing import Any

import torch


def register(kind: Any, stock: Any) -> None:
    """Let guiders, which look processors up by class, find our class as they find the stock one.

    Args:
        kind: a class of our processors.
        stock: the class that it stands in for; if diffusers does not know it, nothing happens.
    """
    from diffusers.hooks._helpers import AttentionProcessorRegistry

    try:
        metadata = AttentionProcessorRegistry.get(stock)
    except ValueError:
        return
    AttentionProcessorRegistry.register(kind, metadata)


def attention_is_skipped() -> bool:
    """Whether a guider makes PyTorch's attention return its values in this pass."""
    if torch.compiler.is_compiling() or not torch._C._len_torch_function_stack():
        return False
    from diffusers.hooks.layer_skip import AttentionScoreSkipFunctionMode

    modes = torch.overrides._get_current_function_mode_stack()
    return any(isinstance(mode, AttentionScoreSkipFunctionMode) for mode in modes)
