"""A recorded dense run, so that later runs start in the middle without computing it again."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ajour.pipelines.enable import transformers_of
from ajour.pipelines.steps import watch_steps
from ajour.search.running import answering, first_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    import numpy as np
    from numpy.typing import NDArray


class Call(NamedTuple):
    """One call of a transformer: its step, the transformer, arguments and output."""

    step: int
    transformer: Any
    args: Any
    kwargs: Any
    output: Any


class Trajectory:
    """The outputs of a pipeline's transformers in one dense run, and some of their calls.

    A replayed run takes the first outputs from here. The scheduler still does all its steps, so
    multistep schedulers arrive at the middle in the right state.

    Args:
        pipe: the pipeline.

    Attributes:
        outputs: step and output of each call of the recorded run.
        calls: those that were kept with their arguments.
        guided: what the scheduler was given in each step: outputs with guidance, flat.
    """

    def __init__(self, pipe: Any) -> None:
        self.transformers = transformers_of(pipe)
        self.scheduler: Any = pipe.scheduler
        self.outputs: list[tuple[int, Any]] = []
        self.calls: list[Call] = []
        self.guided: list[torch.Tensor] = []

    @contextmanager
    def record(self, kept: Container[int] = ()) -> Iterator[None]:
        """Record a run within the block, and the calls of the `kept` steps with arguments."""
        self.outputs, self.calls, self.guided = [], [], []

        def note(transformer: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            step = len(self.guided)
            self.outputs.append((step, output))
            if step in kept:
                self.calls.append(Call(step, transformer, args, kwargs, output))

        def note_step(model_output: torch.Tensor, _: torch.Tensor) -> None:
            self.guided.append(model_output.detach().float().flatten())

        with ExitStack() as undo:
            for transformer in self.transformers:
                hook = transformer.register_forward_hook(note, with_kwargs=True)
                undo.callback(hook.remove)
            undo.enter_context(watch_steps(self.scheduler, note_step))
            yield

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
    def replay(self, until: int) -> Iterator[None]:
        """Within the block, answer the calls of the steps before `until` from the recording."""
        known = [output for step, output in self.outputs if step < until]
        calls = iter(known)

        def answer(_: int, compute: Callable[[], Any]) -> Any:
            output = next(calls, None)
            return compute() if output is None else output

        with answering(self.transformers, answer):
            yield

    def change(self, call: Call) -> float:
        """Relative squared error of a kept call's output if it is computed again now."""
        with torch.no_grad():
            output = call.transformer(*call.args, **call.kwargs)
        exact, changed = (first_tensor(x).double() for x in (call.output, output))
        return float((changed - exact).square().sum()) / float(exact.square().sum())


def relative_error(changed: torch.Tensor, exact: torch.Tensor) -> float:
    """Squared difference over the variance of the exact tensor: 2 for an unrelated sample."""
    spread = (exact - exact.mean()).double().square().mean()
    return float((changed - exact).double().square().mean() / spread)
