"""The model that the page is for: how to load it, its sizes, its plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ajour.demo.request import Size
from ajour.pipelines.bundled import FOLDER, Defaults, bundled_plan, load_pipeline
from ajour.pipelines.generate import call_parameters, check_promptable
from ajour.pipelines.hub import load_plan
from ajour.processors import supported_pipelines
from ajour.search.settings import GENERAL_PROMPTS, MINI_PROMPTS

if TYPE_CHECKING:
    from pathlib import Path

    from ajour.demo.request import Request
    from ajour.plan import Plan

OWN = Defaults()


@dataclass(frozen=True)
class Model:
    """What is known of a model before it is loaded.

    Args:
        path: a pipeline's folder or Hub id; None for the bundled model.
        plan: the plan that comes with it, if one does.
        device: for example `cuda`; None for a CUDA device where there is one, else the CPU.
        backend: the operator's backend; None chooses.
        sizes: offered sizes by name, the default first.
        steps: denoising steps by default.
        guidance: classifier-free guidance scale by default.
        prompts: examples.
    """

    path: str | None = None
    plan: Plan | None = None
    device: str | None = None
    backend: str | None = None
    sizes: dict[str, Size] = field(
        default_factory=lambda: {
            "Small": Size(17, 128, 128),
            "Medium": Size(25, 192, 192),
            "Full": Size(OWN.frames, OWN.height, OWN.width),
        }
    )
    steps: int = 10
    guidance: float = OWN.guidance
    prompts: tuple[str, ...] = MINI_PROMPTS

    @property
    def name(self) -> str:
        """For people."""
        return "bundled mini model" if self.path is None else self.path.rstrip("/").split("/")[-1]

    def load(self) -> Any:
        """The pipeline.

        Raises:
            TypeError: if the page cannot drive it.
        """
        pipe = load_pipeline(self.path, self.device)
        pipe.set_progress_bar_config(disable=True)
        check_pipeline(pipe)
        return pipe

    def call(self, pipe: Any, request: Request) -> dict[str, Any]:
        """Arguments of the pipeline's call, as far as it takes them, prompt and seed aside."""
        wanted = {
            "num_frames": request.size.frames,
            "height": request.size.height,
            "width": request.size.width,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance,
        }
        if self.path is None:
            wanted["max_sequence_length"] = OWN.text_length
        known = call_parameters(pipe)
        return {name: value for name, value in wanted.items() if name in known}


def find_model(
    path: str | None = None,
    plan: str | Path | None = None,
    device: str | None = None,
    backend: str | None = None,
) -> Model:
    """A model by path.

    Args:
        path: a pipeline's folder or Hub id; None for the bundled model.
        plan: a plan file or repository for it; the bundled model has its own.
        device: as of `Model`.
        backend: as of `Model`.

    Raises:
        PlanError: if the plan cannot be read.
    """
    own = None if plan is None else load_plan(plan)
    if path is None:
        if own is None and (FOLDER / "plan.json").is_file():
            own = bundled_plan()
        return Model(plan=own, device=device, backend=backend)
    return Model(path, own, device, backend, prompts=GENERAL_PROMPTS)


def check_pipeline(pipe: Any) -> None:
    """Raise TypeError unless the page can drive a pipeline, saying what is missing."""
    name = type(pipe).__name__
    if name not in supported_pipelines():
        raise TypeError(
            f"{name} is not supported; pipelines that run sparsely are "
            f"{', '.join(supported_pipelines())}"
        )
    check_promptable(pipe)


def sizes_of(pipe: Any) -> dict[str, Size]:
    """Sizes to offer for a pipeline that is not the bundled one: its own, and smaller ones."""
    known = call_parameters(pipe)

    def default(name: str, otherwise: int) -> int:
        value = known[name].default if name in known else None
        return value if isinstance(value, int) else otherwise

    frames = default("num_frames", 1) if "num_frames" in known else 1
    side = 480 if frames > 1 else 1024
    full = Size(frames, default("height", side), default("width", side))

    def smaller(factor: int) -> Size:
        sides = [max(64, round(x / factor / 32) * 32) for x in full[1:]]
        return Size(1 + (frames - 1) // factor // 8 * 8, *sides)

    sizes = {"Full": full, "Half": smaller(2), "Quarter": smaller(4)}
    fast = pipe.device.type == "cuda"
    return sizes if fast else dict(reversed(sizes.items()))


def steps_of(pipe: Any) -> tuple[int, float]:
    """A pipeline's own steps and guidance."""
    known = call_parameters(pipe)
    steps, guidance = (
        known[name].default if name in known else None
        for name in ("num_inference_steps", "guidance_scale")
    )
    scale = float(guidance) if isinstance(guidance, int | float) else 5.0
    return steps if isinstance(steps, int) else 20, scale
