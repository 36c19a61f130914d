"""Which family a transformer belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ajour.processors.cogvideox import CogVideoX
from ajour.processors.flux import Flux
from ajour.processors.hunyuan_video import HunyuanVideo
from ajour.processors.ltx import LTX
from ajour.processors.mochi import Mochi
from ajour.processors.wan import Wan

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Family

FAMILIES: tuple[Family, ...] = (
    Wan(),
    HunyuanVideo(),
    CogVideoX(),
    Flux(),
    LTX(),
    Mochi(),
)


def supported_transformers() -> list[str]:
    """Names of the diffusers transformer classes that can be enabled."""
    return sorted(name for family in FAMILIES for name in family.classes)


def family_of(transformer: torch.nn.Module) -> Family:
    """The family of a transformer.

    Raises:
        TypeError: naming the supported classes, if there is none.
    """
    name = type(transformer).__name__
    for family in FAMILIES:
        if name in family.classes:
            return family
    raise TypeError(
        f"{name} is not supported; supported transformers are {', '.join(supported_transformers())}"
    )
