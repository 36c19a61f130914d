"""Reused steps: the transformer does not run, its output follows from its last outputs.

Between neighbouring steps a transformer's output changes little, and nearly evenly with the noise
level. So a step's output is the last computed output, and a share of the last changes goes on, as
in a multistep solver of differential equations. Caches reuse changes inside of the transformer,
by a threshold that is compared in every step (TeaCache, arXiv 2411.19108; TaylorSeer, arXiv
2503.06923); here the schedule says beforehand which steps are reused, so nothing waits for the GPU,
and all that is kept are outputs, which are as small as latents.
"""

from __future__ import annotations

import types
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from ajour.schedule import PAST

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

CACHES = (
    "fbc_",
    "faster_cache",
    "mag_cache",
    "pyramid_attention_broadcast",
    "sea_cache",
    "taylorseer_cache",
)
"""How the names of the hooks begin that the caches of diffusers put on modules."""


class Output(NamedTuple):
    """An output that was kept: its noise level, its tensors, and what they were part of."""

    noise_level: float
    leaves: list[Any]
    structure: Any


Changed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Of a tensor: its last change, the change before at the same width, and the tensor."""


class PastOutputs:
    """Outputs of the last `PAST` computed steps of a run.

    The passes of a step are branches of guidance. Each pass has a key, and its output follows from
    outputs of passes with the same key.
    """

    def __init__(self) -> None:
        self._outputs: dict[Hashable, list[Output]] = {}

    def record(self, key: Hashable, noise_level: float, output: Any) -> None:
        """Keep the output of a pass: tensors in any structure."""
        leaves, structure = tree_flatten(output)
        past = self._outputs.get(key, [])
        if past and past[-1].structure != structure:
            past = []
        kept = Output(noise_level, [_copy(leaf) for leaf in leaves], structure)
        self._outputs[key] = [*past[1 - PAST :], kept]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._outputs

    def predict(
        self, key: Hashable, noise_level: float, slopes: Sequence[float] | None = None
    ) -> Any:
        """The output of a pass at another noise level, see `Phase`.

        Slopes of changes that were not recorded count for the earliest recorded change.

        Raises:
            KeyError: if no output was recorded.
        """
        past = self._outputs[key]
        last, leaves = past[-1], [_wide(leaf) for leaf in past[-1].leaves]
        measured = [self.slope()] if slopes is None else slopes
        for place, slope in enumerate(measured):
            rates = _rates(past, max(len(past) - 1 - place, 1))
            for leaf, rate in zip(leaves, rates, strict=False):  # none of a single output
                if leaf is not None and rate is not None:
                    leaf += rate * (slope * (noise_level - last.noise_level))
        output = [
            _copy(leaf) if wide is None else wide.to(leaf.dtype)
            for leaf, wide in zip(last.leaves, leaves, strict=True)
        ]
        return tree_unflatten(output, last.structure)

    def slope(self) -> torch.Tensor | float:
        """The share of the change before that went on in the last change, of all passes together.

        From -1 to 1; on the device of the outputs, so nothing waits for it. 0 if fewer than three
        outputs were recorded.
        """
        pairs = self._last_changes()
        return _slope(pairs) if pairs else 0.0

    def missed(self) -> float:
        """Relative squared error of the last outputs if they had been reused with this slope.

        It waits for the device. 1 if fewer than three outputs were recorded.
        """
        pairs = self._last_changes()
        if not pairs:
            return 1.0
        slope = _slope(pairs)
        errors = [(last - slope * before).square().sum() for last, before, _ in pairs]
        norms = [output.square().sum() for _, _, output in pairs]
        return float(torch.stack(errors).sum() / torch.stack(norms).sum().clamp(min=1e-30))

    def _last_changes(self) -> list[Changed]:
        """Of every tensor of which enough outputs were recorded."""
        pairs = []
        for past in self._outputs.values():
            if len(past) == PAST:
                width = past[2].noise_level - past[1].noise_level
                leaves = map(_wide, past[2].leaves)
                for last, before, leaf in zip(
                    _rates(past, 2), _rates(past, 1), leaves, strict=False
                ):
                    if last is not None and before is not None and leaf is not None:
                        pairs.append((last * width, before * width, leaf))
        return pairs


def _slope(pairs: Sequence[Changed]) -> torch.Tensor:
    """The slope that predicts the last changes best from the changes before, from -1 to 1."""
    product = torch.stack([(last * before).sum() for last, before, _ in pairs]).sum()
    square = torch.stack([before.square().sum() for _, before, _ in pairs]).sum()
    return (product / square.clamp(min=1e-30)).clamp(-1, 1)


def _rates(past: Sequence[Output], end: int) -> list[torch.Tensor | None]:
    """Change of each tensor per noise level, up to the output of an index; empty without one."""
    if len(past) <= end or past[end].noise_level == past[end - 1].noise_level:
        return []
    width = past[end].noise_level - past[end - 1].noise_level
    pairs = zip(past[end].leaves, past[end - 1].leaves, strict=True)
    wide = [(_wide(last), _wide(before)) for last, before in pairs]
    return [None if a is None or b is None else (a - b) / width for a, b in wide]


def _wide(leaf: Any) -> torch.Tensor | None:
    """A copy of a tensor in float32 at least; None for anything but numbers that can be scaled."""
    if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return None
    return leaf.to(torch.promote_types(leaf.dtype, torch.float32), copy=True)


class Pass(NamedTuple):
    """A pass of a step: where outputs are kept, the branch of guidance, and the noise level."""

    outputs: PastOutputs
    key: Hashable
    noise_level: float


class Reuse:
    """Answers passes of a transformer in its place, and records those that run.

    It sets a forward method on the transformer. A deep copy binds it to the copy, where it does
    nothing. What others put over it later, such as hooks of offloading, stays when it is released.

    Args:
        transformer: the transformer.
    """

    def __init__(self, transformer: torch.nn.Module) -> None:
        self._transformer = transformer
        self._pass: Pass | None = None
        self._answer: Any = None
        self._before = vars(transformer).get("forward")
        reuse, before, stock = self, self._before, type(transformer).forward

        @wraps(stock)  # pipelines read the signature
        def forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self is not transformer:
                return stock(self, *args, **kwargs)
            if reuse._answer is not None:
                return reuse._answer
            return before(*args, **kwargs) if before else stock(self, *args, **kwargs)

        self._method = types.MethodType(forward, transformer)
        transformer.forward = self._method

    def begin(self, outputs: PastOutputs, key: Hashable, noise_level: float) -> None:
        """A pass begins; it runs unless `answer` is called."""
        self._pass, self._answer = Pass(outputs, key, noise_level), None

    @property
    def can_answer(self) -> bool:
        """Whether a pass like this was recorded."""
        return self._pass is not None and self._pass.key in self._pass.outputs

    def answer(self, slopes: Sequence[float] | None) -> None:
        """The pass does not run; its output follows with these slopes, see `Phase`."""
        assert self._pass is not None
        outputs, key, noise_level = self._pass
        self._pass, self._answer = None, outputs.predict(key, noise_level, slopes)

    def record(self, output: Any) -> None:
        """Keep the output of a pass that ran."""
        if self._pass is not None:
            self._pass.outputs.record(self._pass.key, self._pass.noise_level, output)

    def end(self) -> None:
        """Outside of passes, the transformer runs."""
        self._pass = self._answer = None

    def release(self) -> None:
        """Take the method away; under wrappers of others it stays, and does nothing."""
        self.end()
        if vars(self._transformer).get("forward") is self._method:
            del self._transformer.forward
            if self._before is not None:
                self._transformer.forward = self._before


def cache_of(transformer: torch.nn.Module) -> str | None:
    """The name of a hook of a step cache of diffusers on the transformer; None without a cache."""
    for module in transformer.modules():
        registry = getattr(module, "_diffusers_hook", None)
        for name in getattr(registry, "hooks", ()):
            if name.startswith(CACHES):
                return str(name)
    return None


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf
