"""What every model family provides: its self-attention layers, their grid, and a processor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from accelerate.utils import align_module_device

from ajour.capture import expand
from ajour.ops import attention
from ajour.prologue import Prologue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ajour.capture import CapturedRows
    from ajour.grid import TokenGrid
    from ajour.table import BlockTable


class Obstacle(Exception):
    """Raised by `Family.grid`: why a call of the transformer has to run dense."""


@dataclass
class LayerContext:
    """What a layer's processor is told before each forward pass of its transformer.

    Args:
        tables: the layer's block table, or one per sample of the batch where their text lengths
            differ; empty to run the stock processor.
        rows: captured level maps that the tables lack, because all layers' together are too big.
        backend: the backend asked for, or None to choose.
        listener: called after each sparse attention with q and k as attention sees them, v and
            the output, all (batch, tokens, heads, head_dim), and their grid; for calibration.
        timer: called before and after each sparse attention, between them also what makes lists of
            `rows`.
    """

    tables: tuple[BlockTable, ...] = ()
    rows: tuple[CapturedRows, ...] = ()
    backend: str | None = None
    listener: Callable[..., None] | None = None
    timer: Callable[[], None] | None = None


class SparseProcessor:
    """An attention processor that runs the stock one until its context holds a table.

    A plain object, so that nothing enters the model's state_dict. diffusers sets
    `_attention_backend` and `_parallel_config` on processors; both are passed on to the stock one.

    Args:
        stock: the processor that this one stands in for.
        context: the layer's context, shared with the runtime that fills it.
    """

    stands_in_for: ClassVar[tuple[str, ...]]
    """Names of the diffusers processors whose computation this one knows."""

    def __init__(self, stock: Any = None, context: LayerContext | None = None) -> None:
        if stock is None or context is None:  # diffusers makes processors anew for IP adapters
            raise RuntimeError(
                f"{type(self).__name__} stands in for a stock processor and cannot be made without "
                "one; call ajour.disable(pipe) before processors are replaced, such as by loading "
                "or unloading an IP adapter, and enable again"
            )
        self.stock = stock
        self.context = context

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        prologue: Prologue | None = None,
    ) -> torch.Tensor:
        """Attention through the context's tables.

        Tokens past the end of a table's grid are text padding, to which nobody attends.

        Args:
            query: (batch, tokens, heads, head_dim), in the model's token order.
            key: same shape.
            value: same shape.
            prologue: norms and rotation that queries and keys have not been through yet.

        Returns:
            (batch, kept, heads * head_dim): the rows of the longest grid, 0 for padding.

        Raises:
            RuntimeError: if the batch is not the one that the transformer was called with.
        """
        tables, backend, timer = self.context.tables, self.context.backend, self.context.timer
        if len(tables) not in (1, len(query)):
            raise RuntimeError(
                f"the transformer was called with {len(tables)} samples of different text lengths, "
                f"but attention sees {len(query)}: something changed the batch in between, such as "
                "FasterCache, which cannot be used with guidance in one batch"
            )
        kept = max(table.grid.seq_len for table in tables)
        samples = (
            [slice(None)] if len(tables) == 1 else [slice(i, i + 1) for i in range(len(tables))]
        )
        mixed = []
        for table, sample in zip(tables, samples, strict=True):
            length = table.grid.seq_len
            if timer is not None:
                timer()
            if self.context.rows:
                table = expand([table], [self.context.rows])[0]
            q, k, v = (x[sample, :length] for x in (query, key, value))
            out = attention(q, k, v, table, prologue=prologue, backend=backend)
            if timer is not None:
                timer()
            assert isinstance(out, torch.Tensor)
            if self.context.listener is not None:
                q, k = (prologue or Prologue()).apply(q, k)
                self.context.listener(q, k, v, out, table.grid)
            mixed.append(pad_tokens(out.flatten(2, 3), kept))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    @property
    def _attention_backend(self) -> Any:
        return self.stock._attention_backend

    @_attention_backend.setter
    def _attention_backend(self, value: Any) -> None:
        self.stock._attention_backend = value

    @property
    def _parallel_config(self) -> Any:
        return self.stock._parallel_config

    @_parallel_config.setter
    def _parallel_config(self, value: Any) -> None:
        self.stock._parallel_config = value


class Family(ABC):
    """How one family of transformers is taken apart."""

    classes: ClassVar[tuple[str, ...]]
    """Names of the diffusers transformer classes of this family."""

    processors: ClassVar[tuple[type[SparseProcessor], ...]]
    """The family's processors, one per kind of attention layer."""

    pipelines: ClassVar[tuple[str, ...]]
    """Names of the diffusers pipelines of these transformers that run sparsely."""

    dense_pipelines: ClassVar[Mapping[str, str]] = {}
    """Those that run dense, and why."""

    sparse: ClassVar[str]
    """What runs sparsely, for the documentation."""

    dense: ClassVar[tuple[str, ...]] = ()
    """What runs dense, and why, for the documentation."""

    @abstractmethod
    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """The self-attention modules in order of depth; each has `.processor` and `.heads`."""

    def head_dim(self, transformer: torch.nn.Module) -> int:
        """Channels of a head."""
        return int(transformer.config.attention_head_dim)  # type: ignore[union-attr, arg-type]

    def output_weight(self, layer: Any) -> torch.Tensor | None:
        """Weight (channels, heads * head_dim) of a layer's output projection.

        None if it has none of its own, or it is quantised; heads are then weighed alike.
        """
        projection = getattr(layer, "to_out", None)
        return None if projection is None else weight_of(projection[0])

    @abstractmethod
    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """The token grid of a call of the transformer, all text tokens counted.

        From shapes; where a model tells its extents by values only, these are read once per
        tensor (`read_once`).

        Raises:
            Obstacle: if the call has to run dense.
        """

    def text_lengths(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
        """Text tokens of each sample that are not padding; empty if nothing hides padding."""
        return ()

    def grids(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[TokenGrid, ...]:
        """The grid of a call without text padding: one for all samples, or one per sample.

        Raises:
            Obstacle: if the call has to run dense.
        """
        grid = self.grid(transformer, args, kwargs)
        lengths = self.text_lengths(args, kwargs)
        trimmed = tuple(replace(grid, after=min(length, grid.after)) for length in lengths)
        return trimmed if len(set(trimmed)) > 1 else (trimmed or (grid,))[:1]

    def stands_in_for(self) -> tuple[str, ...]:
        """Names of the diffusers processors that the family's can stand in for."""
        return tuple(name for kind in self.processors for name in kind.stands_in_for)

    def stand_in(self, stock: Any, context: LayerContext) -> SparseProcessor | None:
        """The family's processor for a stock one; None if it knows none."""
        for kind in self.processors:
            if type(stock).__name__ in kind.stands_in_for:
                return kind(stock, context)
        return None

    def obstacle(self, layer: Any) -> str | None:
        """Why a layer has to run dense as it is set up now, or None."""
        if not isinstance(layer.processor, SparseProcessor):
            name, known = type(layer.processor).__name__, self.stands_in_for()
            if name in known:
                return f"a layer's {name} was set after enable(); disable and enable again"
            return f"a layer uses {name}; known processors are {', '.join(known)}"
        if getattr(layer.processor, "_parallel_config", None) is not None:
            return "context parallelism is enabled on the transformer"
        return None


def weight_of(module: Any) -> torch.Tensor | None:
    """A module's weight, brought back for the moment where accelerate has offloaded it.

    Returns:
        (outputs, inputs), or None where it is quantised and its values are not at hand.
    """
    weight: torch.Tensor = module.weight
    plain = type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.is_floating_point()
    if not plain or weight.ndim != 2:
        return None
    if not weight.is_meta:
        return weight
    with align_module_device(module):
        found: torch.Tensor = module.weight.detach().clone()
    return found


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, name: str) -> Any:
    """An argument of a call, given by position or by name; None if it was not given."""
    return args[position] if len(args) > position else kwargs.get(name)


def pad_tokens(x: torch.Tensor, tokens: int) -> torch.Tensor:
    """Rows of 0 at the end, up to a number of tokens; the same tensor if it has them already.

    Args:
        x: (batch, at most `tokens`, channels).
        tokens: the number of rows to return.
    """
    missing = tokens - x.shape[1]
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x
