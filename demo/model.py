"""The model of the page: how to load it, its sizes, its plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ajour.demo.request import Size
from ajour.pipelines.bundled import FOLDER, SIZES, Defaults, bundled_plan, load_pipeline
from ajour.pipelines.generate import call_parameters, check_promptable
from ajour.pipelines.hub import load_plan
from ajour.processors import supported_pipelines
from ajour.search.settings import prompts_of

if TYPE_CHECKING:
    from pathlib import Path

    from ajour.demo.request import Request
    from ajour.plan import Plan

BUNDLED = Defaults()


@dataclass(frozen=True)
class Model:
    """A model, before it is loaded.

    Args:
        path: a pipeline's folder or Hub id; None for the bundled model.
        plan: the plan that comes with it, if any.
        device: for example `cuda`; None for a CUDA device if there is one, else the CPU.
        backend: the operator's backend; None chooses.
        sizes: offered sizes by name.
        size: name of the default size; the first if None.
        steps: denoising steps by default.
        guidance: classifier-free guidance scale by default.
        prompts: example prompts.
    """

    path: str | None = None
    plan: Plan | None = None
    device: str | None = None
    backend: str | None = None
    sizes: dict[str, Size] = field(
        default_factory=lambda: {
            "Small": Size(*SIZES["small"]),
            "Medium": Size(25, 192, 192),
            "Full": Size(*SIZES["default"]),
        }
    )
    size: str | None = "Medium"
    steps: int = BUNDLED.steps
    guidance: float = BUNDLED.guidance
    prompts: tuple[str, ...] = (BUNDLED.prompt, *prompts_of(None, "mini"))

    @property
    def name(self) -> str:
        """The name to show."""
        return "bundled mini model" if self.path is None else self.path.rstrip("/").split("/")[-1]

    @property
    def usual_size(self) -> str:
        """The name of the default size."""
        return next(iter(self.sizes)) if self.size is None else self.size

    def name_of(self, size: Size) -> str | None:
        """The name of a size; None if it has none."""
        return next((name for name, other in self.sizes.items() if other == size), None)

    def load(self) -> Any:
        """The pipeline.

        Raises:
            TypeError: if the page cannot run it.
        """
        pipe = load_pipeline(self.path, self.device)
        pipe.set_progress_bar_config(disable=True)
        check_pipeline(pipe)
        return pipe

    def call(self, pipe: Any, request: Request) -> dict[str, Any]:
        """The arguments that the pipeline's call takes, without prompt and seed."""
        wanted = Defaults(*request.size, request.steps, request.guidance).call()
        taken = set(call_parameters(pipe))
        if self.path is not None:
            taken.discard("max_sequence_length")
        return {name: value for name, value in wanted.items() if name in taken}


def find_model(
    path: str | None = None,
    plan: str | Path | None = None,
    device: str | None = None,
    backend: str | None = None,
) -> Model:
    """A model by path.

    Args:
        path: a pipeline's folder or Hub id; None for the bundled model.
        plan: a plan file or repository for it; the bundled model comes with a plan.
        device: see `Model`.
        backend: see `Model`.

    Raises:
        PlanError: if the plan cannot be read.
    """
    loaded = None if plan is None else load_plan(plan)
    if path is not None:
        return Model(path, loaded, device, backend, size=None, prompts=prompts_of(None, path))
    if loaded is None and (FOLDER / "plan.json").is_file():
        loaded = bundled_plan()
    return Model(plan=loaded, device=device, backend=backend)


def check_pipeline(pipe: Any) -> None:
    """Raise TypeError, with the reason, if the page cannot run a pipeline."""
    name = type(pipe).__name__
    if name not in supported_pipelines():
        raise TypeError(
            f"{name} is not supported; pipelines that run sparsely are "
            f"{', '.join(supported_pipelines())}"
        )
    check_promptable(pipe)


def sizes_of(pipe: Any) -> dict[str, Size]:
    """Sizes to offer for a pipeline: its default and smaller ones, small first on a CPU."""
    frames = _default(pipe, "num_frames", 1)
    side = 480 if frames > 1 else 1024
    full = Size(frames, _default(pipe, "height", side), _default(pipe, "width", side))

    def smaller(factor: int) -> Size:
        height, width = (max(64, round(x / factor / 32) * 32) for x in full[1:])
        return Size(1 + (frames - 1) // factor // 8 * 8, height, width)

    sizes = {"Full": full, "Half": smaller(2), "Quarter": smaller(4)}
    return sizes if pipe.device.type == "cuda" else dict(reversed(sizes.items()))


def steps_of(pipe: Any) -> tuple[int, float]:
    """A pipeline's default steps and guidance."""
    return _default(pipe, "num_inference_steps", 20), _default(pipe, "guidance_scale", 5.0)


def _default(pipe: Any, name: str, otherwise: Any) -> Any:
    """The default of a parameter of the pipeline's call; `otherwise` if it has no number."""
    parameter = call_parameters(pipe).get(name)
    value = None if parameter is None else parameter.default
    return type(otherwise)(value) if isinstance(value, int | float) else otherwise
