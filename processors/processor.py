"""The attention processor that stands in for a stock one, and the state that it reads."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ajour.capture import expand
from ajour.ops import attention
from ajour.prologue import Prologue

if TYPE_CHECKING:
    from collections.abc import Callable

    from ajour.capture import CapturedRows
    from ajour.table import BlockTable

Value = TypeVar("Value")


@dataclass
class LayerState:
    """What one layer runs in the forward pass that is under way. Empty between passes.

    Args:
        tables: the layer's block table, or one per sample of the batch if their text lengths
            differ. Empty: the stock processor runs.
        tokens: all tokens of a sample, text padding included.
        padding_end: where text padding ends among them; `tables` leave it out.
        masks_padding: whether a mask in this pass hides nothing but text padding.
        rows: captured level maps that the tables lack, because those of all layers are too big.
        backend: the operator's backend, or None to choose.
        listeners: called after each attention through the operator with q and k as attention sees
            them, v and the output, all (batch, tokens, heads, head_dim), and their grid.
        timer: called right before and right after each attention through the operator.
        in_pass: whether the transformer's pre-hook has run for this pass.
        report: says once that a call runs dense, and why; raises under `strict`.
    """

    tables: tuple[BlockTable, ...] = ()
    tokens: int = 0
    padding_end: int = 0
    masks_padding: bool = False
    rows: tuple[CapturedRows, ...] = ()
    backend: str | None = None
    listeners: tuple[Callable[..., None], ...] = ()
    timer: Callable[[], None] | None = None
    in_pass: bool = False
    report: Callable[[str], None] | None = None


OUTSIDE = "the transformer's forward() was called directly, so no hook ran; call the module itself"


class SparseProcessor:
    """Runs the stock processor, or block-sparse attention while its layer has a table.

    A plain object, so that nothing enters the model's state_dict. A copy or an unpickled one is
    the stock processor again.

    Args:
        stock: the processor that this one stands in for.
        state: the layer's state, which the runtime fills before each pass.
    """

    def __init__(self, stock: Any = None, state: LayerState | None = None) -> None:
        if stock is None or state is None:  # diffusers makes processors anew for IP adapters
            raise RuntimeError(
                f"{type(self).__name__} stands in for a stock processor and cannot be made without "
                "it; call ajour.disable(pipe) before processors are replaced, for example by "
                "loading or unloading an IP adapter, then enable again"
            )
        self.stock = stock
        self.state = state

    def __call__(self, attn: Any, *args: Any, **kwargs: Any) -> Any:
        """The stock processor's result, with attention through the layer's table if it has one."""
        state = self.state
        if not state.in_pass and state.report is not None:
            state.report(OUTSIDE)
        if not state.tables:
            return self.stock(attn, *args, **kwargs)
        return self.run(attn, *args, **kwargs)

    def run(self, attn: Any, *args: Any, **kwargs: Any) -> Any:
        """What `__call__` does while the layer has a table; arguments of the stock processor."""
        raise NotImplementedError

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        prologue: Prologue | None = None,
    ) -> torch.Tensor:
        """Attention through the layer's tables. Text padding is left out, its rows are 0.

        Args:
            query: (batch, tokens, heads, head_dim), in the model's token order.
            key: same shape.
            value: same shape.
            prologue: norms and rotation that queries and keys have not been through yet.

        Returns:
            Same shape as `query`.

        Raises:
            RuntimeError: if the batch is not the one that the transformer was called with.
        """
        state = self.state
        tables = state.tables
        if len(tables) not in (1, len(query)):
            raise RuntimeError(
                f"the transformer was called with {len(tables)} samples of different text lengths, "
                f"but attention sees {len(query)}: something changed the batch in between, such as "
                "FasterCache, which cannot be used with guidance in one batch"
            )
        if len(tables) == 1:
            return self._attend(query, key, value, tables[0], prologue)
        samples = zip(query.split(1), key.split(1), value.split(1), tables, strict=True)
        return torch.cat([self._attend(*sample, prologue) for sample in samples])

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        table: BlockTable,
        prologue: Prologue | None,
    ) -> torch.Tensor:
        state, length, end = self.state, table.grid.seq_len, self.state.padding_end
        if prologue is not None and length < state.tokens and end < state.tokens:
            query, key = prologue.apply(query, key)  # it counts tokens with padding among them
            prologue = None
        q, k, v = (without_padding(x, length, end) for x in (query, key, value))
        if state.timer is not None:
            state.timer()
        if state.rows:
            table = expand([table], [state.rows])[0]
        out = attention(q, k, v, table, prologue=prologue, backend=state.backend)
        assert isinstance(out, torch.Tensor)
        if state.timer is not None:
            state.timer()
        if state.listeners:
            q, k = (prologue or Prologue()).apply(q, k)
            for listener in state.listeners:
                listener(q, k, v, out, table.grid)
        return with_padding(out, state.tokens, end)

    def __copy__(self) -> Any:
        return copy.copy(self.stock)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.stock, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.stock,)

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


def without_padding(x: torch.Tensor, length: int, end: int) -> torch.Tensor:
    """A sample's tokens without its text padding.

    Args:
        x: (batch, tokens, heads, head_dim).
        length: tokens that are no padding.
        end: where the padding ends.

    Returns:
        (batch, length, heads, head_dim); a view if the padding lies at the end.
    """
    start = end - (x.shape[1] - length)
    return x[:, :length] if start == length else torch.cat((x[:, :start], x[:, end:]), dim=1)


def with_padding(x: torch.Tensor, tokens: int, end: int) -> torch.Tensor:
    """The inverse of `without_padding`: `tokens` rows, those of padding are 0."""
    hidden = tokens - x.shape[1]
    if not hidden:
        return x
    first, last = x[:, : end - hidden], x[:, end - hidden :]
    return torch.cat((torch.nn.functional.pad(first, (0, 0, 0, 0, 0, hidden)), last), dim=1)


def _same(value: Value) -> Value:
    """For pickle: what stands in for a stock processor is stored as the stock processor."""
    return value
