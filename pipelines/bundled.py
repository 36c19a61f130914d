"""The bundled model: a small Wan pipeline and its plan, shipped as package data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.quoting import quoted

if TYPE_CHECKING:
    from ajour.plan import Plan

FOLDER = Path(__file__).parent / "mini"

SIZES = {
    "small": (17, 128, 128),
    "default": (49, 256, 256),
    "real": (81, 480, 832),
}
"""Frames, height and width by name. `real` is a size that people run: 32,760 tokens."""


CALL_NAMES = {
    "frames": "num_frames",
    "height": "height",
    "width": "width",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "text_length": "max_sequence_length",
    "negative_prompt": "negative_prompt",
    "image": "image",
}
"""Options of the command line, and their names in the call of a diffusers pipeline."""


@dataclass(frozen=True)
class Defaults:
    """What a pipeline is run with where the user says nothing.

    Attributes:
        frames: video frames, 4 n + 1 for Wan.
        height: pixels.
        width: pixels.
        guidance: classifier-free guidance scale.
        text_length: tokens that prompts are padded to; the bundled model knows 64.
        fps: frames per second of the written video.
    """

    frames: int = SIZES["default"][0]
    height: int = SIZES["default"][1]
    width: int = SIZES["default"][2]
    steps: int = 20
    guidance: float = 3.0
    text_length: int = 64
    prompt: str = (
        "A large red ring in the top left moves right, and a large blue star in the bottom left "
        "moves right on a navy background."
    )
    fps: int = 16

    def call(self) -> dict[str, Any]:
        """Arguments of the pipeline's call, prompt and seed aside."""
        return call_arguments(vars(self))


def call_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Options such as `Defaults` has, by the names of a diffusers pipeline's call."""
    return {CALL_NAMES[key]: value for key, value in options.items() if key in CALL_NAMES}


def load_pipeline(
    path: str | Path | None = None,
    device: str | None = None,
    dtype: Any = None,
    lora: str | None = None,
) -> Any:
    """Load a diffusers pipeline for inference, from safetensors only: other files can hold code.

    Args:
        path: a pipeline's folder or Hub id; None for the bundled model.
        device: for example `cuda`; None for a CUDA device where there is one, else the CPU.
        dtype: of the weights, or its name; None for fp32 on a CPU and for the bundled model, else
            bf16.
        lora: folder, file or Hub id of a LoRA to load into the pipeline.

    Returns:
        The pipeline.

    Raises:
        FileNotFoundError: if the bundled model is missing from the installation, or a path names no
            folder.
        BadUsage: if the device is not there.
        OSError: if the pipeline has no safetensors.
        TypeError: if the pipeline takes no LoRA.
    """
    import torch
    from diffusers import DiffusionPipeline

    from ajour.pipelines.devices import check_device

    if path is None and not (FOLDER / "model" / "model_index.json").is_file():
        raise FileNotFoundError(f"the bundled model is missing: no {FOLDER / 'model'}; reinstall")
    check_model(path)
    check_device(device)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None:
        dtype = torch.float32 if path is None or device == "cpu" else torch.bfloat16
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    pipe = DiffusionPipeline.from_pretrained(
        path or FOLDER / "model", dtype=dtype, use_safetensors=True
    ).to(device)
    if lora is not None:
        if not hasattr(pipe, "load_lora_weights"):
            raise TypeError(f"{type(pipe).__name__} takes no LoRA")
        pipe.load_lora_weights(lora, use_safetensors=True)
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    return pipe


def check_model(path: str | Path | None) -> None:
    """Raise FileNotFoundError if a model is named by a path that is no folder, not by a Hub id."""
    named = path is not None and (str(path).startswith((".", "/", "~")) or str(path).count("/") > 1)
    if path is not None and named and not Path(path).is_dir():
        raise FileNotFoundError(
            f"no model at {quoted(str(path))}: no such folder; a model is a pipeline's folder or a "
            "Hub id such as owner/name"
        )


def bundled_plan() -> Plan:
    """The bundled model's plan."""
    from ajour.plan import Plan

    return Plan.load(FOLDER / "plan.json")
