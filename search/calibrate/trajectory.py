"""A recorded dense run, so that later runs start in the middle without computing it again."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ajour.search.setup import first_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray


class Call(NamedTuple):
    """One call of a transformer: arguments, named arguments and output."""

    args: Any
    kwargs: Any
    output: Any


class Trajectory:
    """The outputs of a pipeline's transformer in one dense run, and some of its calls.

    A replayed run takes the first outputs from here. The scheduler still does all its steps, so
    multistep schedulers arrive at the middle in the right state.

    Args:
        pipe: the pipeline.

    Attributes:
        outputs: one for each call of the recorded run.
        calls: those that were kept with their arguments.
        guided: what the scheduler was given in each step: outputs with guidance, flat.
    """

    def __init__(self, pipe: Any) -> None:
        self.transformer: Any = pipe.transformer
        self.scheduler: Any = pipe.scheduler
        self.outputs: list[Any] = []
        self.calls: list[Call] = []
        self.guided: list[torch.Tensor] = []

    @contextmanager
    def record(self, keeps: Callable[[], bool]) -> Iterator[None]:
        """Record a run within the block, and the calls that `keeps` wants with arguments."""
        self.outputs, self.calls, self.guided = [], [], []

        def note(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self.outputs.append(output)
            if keeps():
                self.calls.append(Call(args, kwargs, output))

        method, of_instance = self.scheduler.step, vars(self.scheduler).get("step")

        @wraps(method)  # pipelines read its signature
        def step(model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.guided.append(model_output.detach().float().flatten())
            return method(model_output, *args, **kwargs)

        hook = self.transformer.register_forward_hook(note, with_kwargs=True)
        self.scheduler.step = step
        try:
            yield
        finally:
            hook.remove()
            del self.scheduler.step
            if of_instance is not None:
                self.scheduler.step = of_instance

    def changes(self, latents: torch.Tensor) -> NDArray[np.float64]:
        """Inner products of the changes from step to step, see `Changes`: (steps, steps).

        Args:
            latents: the final latents of the recorded run.
        """
        outputs = torch.stack(self.guided)
        changes = torch.diff(outputs, dim=0, prepend=outputs[:1])
        spread = float((latents - latents.mean()).double().square().sum())
        return (changes @ changes.T).double().cpu().numpy() / spread

    @contextmanager
    def replay(self, share: float) -> Iterator[None]:
        """Within the block, answer the first calls, a share of 0 to 1, from the recording."""
        answered = round(share * len(self.outputs))
        transformer = self.transformer
        # accelerate's hooks, for example, set a forward on the instance.
        compute, of_instance = transformer.forward, vars(transformer).get("forward")
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
            if of_instance is not None:
                transformer.forward = of_instance

    def change(self, call: Call) -> float:
        """Relative squared error of a kept call's output if it is computed again now."""
        with torch.no_grad():
            output = self.transformer(*call.args, **call.kwargs)
        exact, changed = (first_tensor(x).double() for x in (call.output, output))
        return float((changed - exact).square().sum()) / float(exact.square().sum())


def relative_error(changed: torch.Tensor, exact: torch.Tensor) -> float:
    """Squared difference over the variance of the exact tensor: 2 for an unrelated sample."""
    spread = (exact - exact.mean()).double().square().mean()
    return float((changed - exact).double().square().mean() / spread)
