"""Compiling a transformer's blocks for as long as it is enabled."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ajour.pipelines.locate import transformers_of
from ajour.processors import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

COMPILED = "_compiled_call_impl"
"""Where `torch.nn.Module.compile` keeps the compiled call; None for a module that is not."""


class CompiledBlocks:
    """The repeated blocks of transformers, to be compiled in place with dynamic sizes.

    They are the blocks that diffusers names for `compile_repeated_blocks`, or else those that
    attend sparsely. One graph serves all blocks of a kind, and other sizes and prompts.

    Args:
        transformers: supported transformers.

    Raises:
        ValueError: if one of them is compiled already.
    """

    def __init__(self, transformers: Sequence[Any]) -> None:
        self._blocks: list[torch.nn.Module] = []
        for transformer in transformers:
            if any(getattr(part, COMPILED, None) is not None for part in transformer.modules()):
                raise ValueError(
                    f"{type(transformer).__name__} is compiled already; enable it without "
                    "compile=True, which keeps it compiled"
                )
            self._blocks += repeated_blocks(transformer)

    def compile(self) -> None:
        """Compile them, each at its first call."""
        for block in self._blocks:
            block.compile(dynamic=True)

    def release(self) -> None:
        """The blocks run without a compiler again."""
        for block in self._blocks:
            setattr(block, COMPILED, None)


def repeated_blocks(transformer: Any) -> list[torch.nn.Module]:
    """The blocks of a supported transformer that are worth compiling, in order of depth."""
    names = getattr(transformer, "_repeated_blocks", None)
    if names:
        return [part for part in transformer.modules() if type(part).__name__ in names]
    lists = family_of(transformer).blocks
    return [block for name in lists for block in getattr(transformer, name)]


@contextmanager
def compiled(pipe: Any, wanted: bool = True) -> Iterator[None]:
    """Within the block, the blocks of a pipeline's transformers are compiled, if `wanted`."""
    blocks = CompiledBlocks(transformers_of(pipe) if wanted else ())
    blocks.compile()
    try:
        yield
    finally:
        blocks.release()
