"""diffusers' own attention backends, which run dense steps and cross-attention."""

from __future__ import annotations

import torch

DENSE_BACKENDS = {
    "native": "PyTorch's attention, the default",
    "_native_cudnn": "cuDNN's attention, often the fastest on H100 and newer GPUs",
    "flash": "FlashAttention 2",
    "_flash_3": "FlashAttention 3, for H100 and H200",
    "flash_hub": "FlashAttention 2 from the Hugging Face Hub",
    "sage": "SageAttention, which quantises queries and keys",
    "sage_hub": "SageAttention from the Hugging Face Hub",
    "xformers": "xformers' memory-efficient attention",
}
"""What each is, by its name in diffusers."""

ANY_DEVICE = ("native",)
"""Those that run on a CPU."""


def dense_backend_reason(name: str) -> str | None:
    """Why diffusers cannot run an attention backend here, or None if it can."""
    from diffusers.models import attention_dispatch as dispatch

    try:
        backend = dispatch.AttentionBackendName(name)
    except ValueError:
        return "this version of diffusers does not have it"
    try:
        dispatch._check_attention_backend_requirements(backend)
    except RuntimeError as error:
        return str(error)
    if name not in ANY_DEVICE and not torch.cuda.is_available():
        return "needs a GPU, torch sees no CUDA device"
    return None
