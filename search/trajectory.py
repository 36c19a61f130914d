"""Dense runs kept step by step, so that later runs start in the middle without computing again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Trajectory:
    """What a pipeline's transformer gave in one dense run, and some of what it was given.

    A replayed run takes the first calls' outputs from here. The scheduler still does all its
    steps, so multistep schedulers arrive at the middle in the right state.

    Args:
        pipe: a pipeline with one transformer.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.outputs: list[Any] = []
        self.calls: list[tuple[Any, Any, Any]] = []
        """Arguments, named arguments and output of the calls that were asked for."""

    @contextmanager
    def record(self, wanted: Callable[[], bool]) -> Iterator[None]:
        """Keep every output of the transformer within the block.

        Args:
            wanted: says after a call whether to keep its arguments too.
        """
        self.outputs, self.calls = [], []

        def keep(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self.outputs.append(output)
            if wanted():
                self.calls.append((args, kwargs, output))

        hook = self.pipe.transformer.register_forward_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def replay(self, share: float) -> Iterator[None]:
        """Within the block, answer the transformer's first calls from the recording.

        Args:
            share: of the recorded calls to answer, 0 to 1.
        """
        answered = round(share * len(self.outputs))
        transformer = self.pipe.transformer
        compute, own = transformer.forward, vars(transformer).get("forward")
        calls = 0

        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return self.outputs[calls - 1] if calls <= answered else compute(*args, **kwargs)

        transformer.forward = forward
        try:
            yield
        finally:
            del transformer.forward
            if own is not None:  # of accelerate's hooks, for example
                transformer.forward = own

    def change(self, calls: Sequence[tuple[Any, Any, Any]]) -> float:
        """Relative squared error of the outputs of kept calls if they are computed again now."""
        changes, norms = 0.0, 0.0
        for args, kwargs, output in calls:
            with torch.no_grad():
                changed = self.pipe.transformer(*args, **kwargs)
            exact, other = (next(iter(_tensors(x))).double() for x in (output, changed))
            changes += float((other - exact).square().sum())
            norms += float(exact.square().sum())
        return changes / norms


def latents(pipe: Any, prompt: str, seed: int, **options: Any) -> torch.Tensor:
    """The final latents of one run, on the CPU in float32.

    Args:
        pipe: a diffusers pipeline.
        prompt: the prompt.
        seed: seed of the initial noise, on the CPU.
        options: further arguments of the pipeline's call.
    """
    generator = torch.Generator().manual_seed(seed)
    found = pipe(prompt, generator=generator, output_type="latent", **options)
    return next(iter(_tensors(found))).float().cpu()


def relative_error(changed: torch.Tensor, exact: torch.Tensor) -> float:
    """Squared difference over the variance of what is exact: 2 for an unrelated sample."""
    spread = (exact - exact.mean()).double().square().mean()
    return float((changed - exact).double().square().mean() / spread)


def _tensors(output: Any) -> Any:
    """What a model or pipeline returned, as a sequence."""
    return output.values() if isinstance(output, dict) else output
