"""Which family a transformer belongs to."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from ajour.processors.anyflow import AnyFlow
from ajour.processors.bria_fibo import BriaFibo
from ajour.processors.chroma import Chroma
from ajour.processors.chronoedit import ChronoEdit
from ajour.processors.cogvideox import CogVideoX
from ajour.processors.consisid import ConsisID
from ajour.processors.cosmos import Cosmos
from ajour.processors.cosmos3 import Cosmos3
from ajour.processors.ernie_image import ErnieImage
from ajour.processors.flux import Flux
from ajour.processors.flux2 import Flux2
from ajour.processors.flux_kin import Bria, LongCatImage, OvisImage
from ajour.processors.hunyuan_image import HunyuanImage
from ajour.processors.hunyuan_video import HunyuanVideo
from ajour.processors.hunyuan_video15 import HunyuanVideo15
from ajour.processors.hunyuan_video_framepack import HunyuanVideoFramepack
from ajour.processors.joyimage import JoyImageEdit
from ajour.processors.kandinsky5 import Kandinsky5
from ajour.processors.kandinsky6 import Kandinsky6
from ajour.processors.krea2 import Krea2
from ajour.processors.ltx import LTX
from ajour.processors.ltx2 import LTX2
from ajour.processors.minimax_h3 import MiniMaxH3
from ajour.processors.mochi import Mochi
from ajour.processors.motif_video import MotifVideo
from ajour.processors.nucleus_moe import NucleusMoEImage
from ajour.processors.prx import PRX
from ajour.processors.qwen_image import QwenImage
from ajour.processors.refused import REFUSED
from ajour.processors.skyreels_v2 import SkyReelsV2
from ajour.processors.wan import Wan
from ajour.processors.wan_animate import WanAnimate
from ajour.processors.wan_vace import WanVACE
from ajour.processors.z_image import ZImage

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Family

FAMILIES: tuple[Family, ...] = (
    Wan(),
    WanVACE(),
    WanAnimate(),
    SkyReelsV2(),
    ChronoEdit(),
    AnyFlow(),
    Cosmos(),
    Cosmos3(),
    HunyuanVideo(),
    HunyuanVideo15(),
    HunyuanVideoFramepack(),
    MotifVideo(),
    CogVideoX(),
    ConsisID(),
    LTX(),
    LTX2(),
    Mochi(),
    Kandinsky5(),
    Kandinsky6(),
    MiniMaxH3(),
    Flux(),
    Flux2(),
    OvisImage(),
    LongCatImage(),
    Bria(),
    BriaFibo(),
    Chroma(),
    QwenImage(),
    ZImage(),
    JoyImageEdit(),
    HunyuanImage(),
    Krea2(),
    ErnieImage(),
    PRX(),
    NucleusMoEImage(),
)


def supported_transformers() -> list[str]:
    """Names of the diffusers transformer classes that can be enabled."""
    return sorted(name for family in FAMILIES for name in family.classes)


def supported_pipelines() -> list[str]:
    """Names of the diffusers pipelines whose attention can run sparsely."""
    return sorted(name for family in FAMILIES for name in family.pipelines)


def class_name(transformer: torch.nn.Module) -> str:
    """Name of a transformer's class, or of the supported class that it extends."""
    names = [kind.__name__ for kind in type(transformer).__mro__]
    known = (name for name in names if any(name in family.classes for family in FAMILIES))
    return next(known, names[0])


def family_of(transformer: torch.nn.Module) -> Family:
    """The family of a transformer, or of the diffusers class that its class extends.

    Raises:
        TypeError: if there is none, naming what is nearest and what would be needed.
    """
    name = class_name(transformer)
    for family in FAMILIES:
        if name in family.classes:
            return family
    if name == "OptimizedModule":
        raise TypeError(
            "torch.compile(transformer) made a wrapper, which cannot be enabled; enable first, or "
            "compile in place: transformer.compile() or transformer.compile_repeated_blocks()"
        )
    supported = f"supported transformers are {', '.join(supported_transformers())}"
    if name in REFUSED:
        raise TypeError(f"{name} is not supported: {REFUSED[name]}; {supported}")
    family, kind = nearest(transformer)
    needed = (
        f"it uses {kind} like {family.classes[0]}, so a family that lists its layers and its grid "
        "would be needed"
        if kind
        else f"the nearest by name is {family.classes[0]}; a family with a processor of its own, "
        "its layers and its grid would be needed"
    )
    raise TypeError(f"{name} is not supported: {needed}; {supported}")


def nearest(transformer: torch.nn.Module) -> tuple[Family, str | None]:
    """The family most like a transformer's.

    Returns:
        The family, and the attention processor that both use; None if it is near by name only.
    """
    for module in transformer.modules():
        kind = type(getattr(module, "processor", None)).__name__
        for family in FAMILIES:
            if kind in family.known_processors():
                return family, kind
    name = type(transformer).__name__
    likeness = {f: SequenceMatcher(None, name, f.classes[0]).ratio() for f in FAMILIES}
    return max(FAMILIES, key=likeness.__getitem__), None
