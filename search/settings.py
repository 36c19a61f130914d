"""Settings of a search: model, prompts, sizes, target; and reading prompt files."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.search.bounds import Bounds

if TYPE_CHECKING:
    from ajour.search.setup import PipelineCall
    from ajour.search.timing.costs import Costs

CALIBRATION, VERIFICATION, BANDS = 2, 3, 5
"""Prompts to measure on, prompts to verify on, and bands of steps, where a search is not told."""

KINDS = {
    "psnr": ("{:g} dB", 5, 100),
    "speedup": ("{:g}x", 1, 100),
    "density": ("mean density {:g}", 0, 1),
}
"""Kinds of targets: in words, above which value, and up to which."""


@dataclass(frozen=True)
class Target:
    """The figure that a plan has to reach, and the bounds that it has to hold.

    Args:
        kind: `psnr`, `speedup` or `density`.
        value: decibels against dense attention, times as fast, or kept share of the attention.
        bounds: on further figures.

    Raises:
        ValueError: if the kind is unknown or the value is out of its range.
    """

    kind: str
    value: float
    bounds: Bounds = Bounds()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a target is one of {', '.join(KINDS)}, got {self.kind!r}")
        _, low, high = KINDS[self.kind]
        if not low < self.value <= high:
            raise ValueError(f"a target {self.kind} is over {low} up to {high}, got {self.value:g}")

    def __str__(self) -> str:
        bounds = str(self.bounds)
        return f"{self.figure}, {bounds}" if bounds else self.figure

    @property
    def figure(self) -> str:
        """The target in words, without its bounds."""
        return KINDS[self.kind][0].format(self.value)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; `bounds` only if some are given."""
        bounds = self.bounds.to_dict()
        return {"kind": self.kind, "value": self.value} | ({"bounds": bounds} if bounds else {})


@dataclass(frozen=True)
class Settings:
    """Everything that a search's result depends on, besides the device.

    Attributes:
        model: folder or Hub id of the pipeline, or `mini`.
        target: what to reach.
        calibration: prompts to measure on, seeded `seed`, `seed + 1` and so on.
        verification: other prompts to verify on, seeded after those.
        call: how the pipeline is run, see `Setup`.
        lora: folder, file or Hub id of a LoRA that the pipeline has loaded.
        dtype: that the pipeline was loaded in; None for the usual one.
        seed: the first seed.
        bands: bands of steps that may get different assignments; None for 5, or the number of
            steps if it is less.
        reuse: whether steps may be reused.
        backend: the operator's backend; None chooses.
        costs: the cost model to use; None measures it.
    """

    model: str
    target: Target
    calibration: tuple[str, ...]
    verification: tuple[str, ...]
    call: PipelineCall = field(default_factory=dict)
    lora: str | None = None
    dtype: str | None = None
    seed: int = 0
    bands: int | None = None
    reuse: bool = True
    backend: str | None = None
    costs: Costs | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; what the call has of other types is described."""
        values = asdict(replace(self, call={})) | {"call": described(self.call)}
        return dict(json.loads(json.dumps(values)))

    def identity(self) -> dict[str, Any]:
        """The settings that measurements depend on: all but the target.

        A `Search` adds the pipeline's origin and the candidates.
        """
        return {name: value for name, value in self.to_dict().items() if name != "target"}


def described(call: Any) -> Any:
    """How a pipeline is run, or a part of that, as JSON.

    Plain values stay. Arrays, tensors, images and functions become a text with a digest of their
    content, so that two of them can be told apart.
    """
    if call is None or isinstance(call, str | int | float):
        return call
    if isinstance(call, Mapping):
        return {str(name): described(value) for name, value in call.items()}
    if isinstance(call, list | tuple):
        return [described(value) for value in call]
    if callable(call) and not hasattr(call, "__array__"):
        name = getattr(call, "__qualname__", type(call).__qualname__)
        return f"<function {name} {digest(_source(call))}>"
    value = call.detach().cpu().float() if hasattr(call, "detach") else call
    array = np.ascontiguousarray(value)
    if array.dtype.hasobject:
        return f"<{type(call).__name__}>"
    content = hashlib.sha256(array.tobytes()).hexdigest()[:12]
    return f"<{type(call).__name__} {'x'.join(map(str, array.shape))} {content}>"


def is_described(value: Any) -> bool:
    """Whether a value of a described call, or a part of it, stands for something else."""
    if isinstance(value, dict | list):
        return any(map(is_described, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value.startswith("<") and value.endswith(">")


def _source(function: Any) -> str:
    """Source text of a function; empty if there is none."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def digest(data: Any) -> str:
    """Twelve hex digits that stand for JSON data."""
    text = json.dumps(data, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def prompts_of(path: Path | None, model: Any, least: int = 1) -> tuple[str, ...]:
    """The prompts of a file, see `read_prompts`; without one, the built-in prompts of a model."""
    name = "mini" if model == "mini" else "general"
    return read_prompts(path or Path(__file__).parent / "prompts" / f"{name}.txt", least)


def read_prompts(path: Path, least: int = 1) -> tuple[str, ...]:
    """The prompts of a text file, one per line; empty lines and lines from `#` on are skipped.

    Raises:
        ValueError: if the file cannot be read or is no UTF-8 text, or holds fewer than `least`
            different prompts.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read prompts {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts {str(path)!r} must be UTF-8 text: {error.reason}") from error
    lines = (line.strip() for line in text.splitlines())
    prompts = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if len(prompts) < least:
        many = f"{least} different prompts" if least > 1 else "1 prompt"
        why = " (some to measure on, others to verify on)" if least > 1 else ""
        raise ValueError(
            f"prompts {str(path)!r} must hold at least {many}, one per line{why}, got "
            f"{len(prompts)}"
        )
    return prompts


def split(
    prompts: tuple[str, ...], calibration: int | None = None, verification: int | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first prompts to calibrate on, the next to verify on; one of each at least.

    Args:
        prompts: at least two.
        calibration: how many to calibrate on; None for 2, or all but one if they are fewer.
        verification: how many to verify on; None for 3, or all others if they are fewer.

    Raises:
        ValueError: if there are fewer prompts than were asked for.
    """
    most = len(prompts) - (verification or 1)
    if most < (calibration or 1):
        raise ValueError(
            f"{calibration or 'some'} calibration prompts and {verification or 'some'} "
            f"verification prompts were asked for, but there are {len(prompts)} prompts; no prompt "
            "is used for both. Ask for fewer, or give a file with more prompts to --prompts"
        )
    first = calibration or min(CALIBRATION, most)
    return prompts[:first], prompts[first:][: verification or VERIFICATION]
