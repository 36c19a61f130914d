"""A recorded dense run, so that later runs start in the middle without computing it again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ajour.search.setup import first_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Call(NamedTuple):
    """One call of a transformer: arguments, named arguments and output."""

    args: Any
    kwargs: Any
    output: Any


class Trajectory:
    """The outputs of a pipeline's transformer in one dense run, and some of its calls.

    A replayed run takes the first outputs from here. The scheduler still does all its steps, so
    multistep schedulers arrive at the middle in the right state.

    `outputs` has one entry per call of the recorded run; `calls` are those kept with arguments.
    """

    def __init__(self, transformer: torch.nn.Module) -> None:
        self.transformer: Any = transformer
        self.outputs: list[Any] = []
        self.calls: list[Call] = []

    @contextmanager
    def record(self, keeps: Callable[[], bool]) -> Iterator[None]:
        """Record the transformer's outputs within the block, and the calls that `keeps` wants."""
        self.outputs, self.calls = [], []

        def note(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self.outputs.append(output)
            if keeps():
                self.calls.append(Call(args, kwargs, output))

        hook = self.transformer.register_forward_hook(note, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

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
