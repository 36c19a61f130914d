"""What a model family provides: its self-attention layers, the grid and the text of a call."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.utils._pytree import tree_leaves

from ajour.processors.processor import SparseProcessor
from ajour.processors.stock import stand_in_for
from ajour.processors.weights import weight_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.grid import TokenGrid
    from ajour.processors.fused import Fusion
    from ajour.processors.layer import LayerState


class Obstacle(Exception):
    """Raised by a family: why a call of the transformer has to run dense."""


class Call:
    """One call of a transformer, its arguments by name whether they came by position or by name.

    Args:
        transformer: the transformer.
        args: positional arguments of its `forward`.
        kwargs: named ones.
    """

    def __init__(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.transformer = transformer
        self.config: Any = transformer.config
        kind: Any = type(transformer)
        bound = _signature(kind).bind_partial(transformer, *args, **kwargs)
        bound.apply_defaults()
        self._arguments = bound.arguments

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        values = tree_leaves(list(self._arguments.values()))
        return next(value.device for value in values if isinstance(value, torch.Tensor))

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """Of all tensors among the arguments."""
        values = tree_leaves(list(self._arguments.values()))
        return tuple(value.shape for value in values if isinstance(value, torch.Tensor))

    def __getitem__(self, name: str) -> Any:
        """An argument; None if it was not given and has no default."""
        return self._arguments.get(name)


@cache
def _signature(kind: Any) -> inspect.Signature:
    return inspect.signature(kind.forward)


class Family(ABC):
    """A family of transformers: 20 to 40 lines, for the stock processor's own code runs."""

    classes: ClassVar[tuple[str, ...]]
    """Names of the diffusers transformer classes."""

    processors: ClassVar[tuple[str, ...]] = ()
    """Names of stock processors that attend through `dispatch_attention_fn`, see `stock.py`."""

    fusion: ClassVar[Fusion | None] = None
    """Norms and rotation that the operator computes in the place of their code."""

    rewritten: ClassVar[Mapping[str, type[SparseProcessor]]] = {}
    """Processors of our own by the name of the stock one, whose code cannot run: it does not use
    `dispatch_attention_fn`, or makes a mask of tokens by tokens."""

    pipelines: ClassVar[tuple[str, ...]]
    """Names of the diffusers pipelines that run sparse."""

    dense_pipelines: ClassVar[Mapping[str, str]] = {}
    """Names of pipelines that run dense, and why."""

    sparse: ClassVar[str]
    """What runs sparse, for the documentation."""

    dense: ClassVar[tuple[str, ...]] = ()
    """What runs dense, and why, for the documentation."""

    timestep: ClassVar[str] = "timestep"
    """Name of the argument that holds the timestep."""

    blocks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    """Names of the transformer's lists of blocks whose self-attention runs sparse."""

    attention: ClassVar[str] = "attn"
    """Name of the self-attention module in a block."""

    def layers(self, transformer: Any) -> list[Any]:
        """The self-attention modules in order of depth; each has a `.processor`."""
        blocks = [block for name in self.blocks for block in getattr(transformer, name)]
        return [getattr(block, self.attention) for block in blocks]

    @abstractmethod
    def grid(self, call: Call) -> TokenGrid:
        """The token grid of a call, all text tokens counted.

        From shapes. Where only values give the extents, they are read once per tensor
        (`read_once`), because each read waits for the GPU.

        Raises:
            Obstacle: if the call has to run dense.
        """

    def padding(self, call: Call) -> tuple[int, ...]:
        """Tokens of text padding of each sample, which attention never sees; empty if unmasked."""
        return ()

    def padding_end(self, call: Call, whole: TokenGrid) -> int:
        """Where the padding ends among all tokens: at the end, or where text before video ends."""
        return whole.seq_len

    def keys_alone(self, call: Call, whole: TokenGrid) -> tuple[int, int]:
        """How many of the first and of the last tokens have keys, but no queries."""
        return 0, 0

    def heads(self, transformer: Any) -> int:
        """Heads of a layer."""
        return int(self.layers(transformer)[0].heads)

    def head_dim(self, transformer: Any) -> int:
        """Channels of a head."""
        layer = self.layers(transformer)[0]
        return int(layer.inner_dim) // int(layer.heads)

    def output_weight(self, layer: Any, out: torch.Tensor) -> torch.Tensor | None:
        """Weight (channels, heads * head_dim) of a layer's output projection, see `weight_of`.

        None if the layer has no projection; then all heads weigh the same.

        Args:
            layer: the layer, in a forward pass.
            out: its attention's output, (batch, tokens, heads, head_dim).
        """
        projection = getattr(layer, "to_out", None)
        return None if projection is None else weight_of(projection[0], out)

    def known_processors(self) -> tuple[str, ...]:
        """Names of the stock processors that the family can stand in for."""
        return (*self.rewritten, *self.processors)

    def stand_in(self, stock: Any, state: LayerState) -> SparseProcessor | None:
        """The processor that stands in for a stock one; None if the family does not know it."""
        kind: Any = type(stock)
        if kind.__name__ in self.rewritten:
            return self.rewritten[kind.__name__](stock, state)
        known = kind.__name__ in self.processors
        return stand_in_for(kind, self.fusion)(stock, state) if known else None

    def obstacle(self, layer: Any) -> str | None:
        """Why a layer has to run dense as it is set up now, or None."""
        if not isinstance(layer.processor, SparseProcessor):
            name, known = type(layer.processor).__name__, self.known_processors()
            if name in known:
                return f"a layer's {name} was set after enable(); disable and enable again"
            if "IPAdapter" in name:
                return (
                    f"a layer uses {name} of an IP adapter, which attends to an image too; call "
                    "pipe.unload_ip_adapter() and enable again to run it sparse"
                )
            return f"a layer uses {name}; known processors are {', '.join(known)}"
        if getattr(layer.processor, "_parallel_config", None) is not None:
            return "context parallelism is enabled on the transformer"
        return None


def trimmed(whole: TokenGrid, padding: tuple[int, ...], padding_end: int) -> tuple[TokenGrid, ...]:
    """The grid of a call without text padding: one for all samples, or one per sample.

    Args:
        whole: the grid with all text tokens.
        padding: see `Family.padding`.
        padding_end: see `Family.padding_end`.
    """
    place = "before" if padding_end <= whole.before else "after"
    text = getattr(whole, place)
    grids = tuple(replace(whole, **{place: text - hidden}) for hidden in padding)
    return grids if len(set(grids)) > 1 else (grids or (whole,))[:1]
