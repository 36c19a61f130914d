"""Settings of a search: model, prompts, sizes, target; and reading prompt files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.search.bounds import Bounds

if TYPE_CHECKING:
    from ajour.search.timing.costs import Costs

KINDS = {
    "psnr": ("{:g} dB", 5, 100),
    "speedup": ("{:g}x", 1, 100),
    "density": ("density {:g}", 0, 1),
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
        call: further arguments of the pipeline's call.
        seed: the first seed.
        bands: bands of steps that may get different assignments.
        reuse: whether steps may be reused.
        backend: the operator's backend; None chooses.
        costs: the cost model to use; None measures it.
    """

    model: str
    target: Target
    calibration: tuple[str, ...]
    verification: tuple[str, ...]
    call: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    bands: int = 5
    reuse: bool = True
    backend: str | None = None
    costs: Costs | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dict(json.loads(json.dumps(asdict(self))))

    def identity(self) -> dict[str, Any]:
        """The settings that measurements depend on: all but the target.

        A `Search` adds the pipeline's origin and the candidates.
        """
        return {name: value for name, value in self.to_dict().items() if name != "target"}


def digest(data: Any) -> str:
    """Twelve hex digits that stand for JSON data."""
    text = json.dumps(data, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def prompts_of(path: Path | None, model: Any) -> tuple[str, ...]:
    """The prompts of a file, see `read_prompts`; without one, the built-in prompts of a model."""
    name = "mini" if model == "mini" else "general"
    return read_prompts(path or Path(__file__).parent / "prompts" / f"{name}.txt")


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts of a text file, one per line; empty lines and lines from `#` on are skipped.

    Raises:
        ValueError: if the file cannot be read or is no UTF-8 text, or holds fewer than two
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
    if len(prompts) < 2:
        raise ValueError(
            f"prompts {str(path)!r} must hold at least 2 different prompts, one per line (some to "
            f"measure on, others to verify on), got {len(prompts)}"
        )
    return prompts


def split(prompts: tuple[str, ...], calibration: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first prompts to calibrate on, the others to verify on; one of each at least."""
    calibration = max(1, min(calibration, len(prompts) - 1))
    return prompts[:calibration], prompts[calibration:]
