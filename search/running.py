"""Interfering with a pipeline's runs: answering for its transformers, and ending a run early."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class RunEnded(BaseException):
    """Ends a run that has done what it was for. It is no failure, so no `Exception`."""


@contextmanager
def ending(pipe: Any) -> Iterator[None]:
    """The run within the block may be ended by `RunEnded`; offloaded models then leave the GPU."""
    try:
        yield
    except RunEnded:
        if hasattr(pipe, "maybe_free_model_hooks"):
            pipe.maybe_free_model_hooks()


@contextmanager
def answering(
    transformers: Sequence[torch.nn.Module], answer: Callable[[int, Callable[[], Any]], Any]
) -> Iterator[None]:
    """Within the block, transformers do not run by themselves.

    Args:
        transformers: of a pipeline.
        answer: gives the output of a pass, from the index of its transformer and a callable that
            computes the output. Hooks of the transformers run as usual.
    """

    def replace(index: int, transformer: torch.nn.Module) -> Callable[[], None]:
        # accelerate's hooks, for example, set a forward on the instance.
        compute, of_instance = transformer.forward, vars(transformer).get("forward")

        @wraps(compute)  # pipelines read the signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            return answer(index, partial(compute, *args, **kwargs))

        def restore() -> None:
            del transformer.forward
            if of_instance is not None:
                transformer.forward = of_instance

        transformer.forward = forward
        return restore

    with ExitStack() as undo:
        for index, transformer in enumerate(transformers):
            undo.callback(replace(index, transformer))
        yield


def first_tensor(output: Any) -> torch.Tensor:
    """The first tensor of what a model or pipeline returned."""
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
