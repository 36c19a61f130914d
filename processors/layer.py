"""What one layer runs in a pass, and its attention, which is one node of a compiled graph.

A compiled graph knows the layer by a number that it reads from a tensor. So it does not depend on
what passes give to the layer, such as tables, numbers of tokens and listeners, and other plans,
phases, prompts and sizes do not compile anything again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch

from ajour.capture import expand
from ajour.ops import TAGS, attention
from ajour.prologue import Prologue

if TYPE_CHECKING:
    from collections.abc import Callable

    from ajour.capture import CapturedRows
    from ajour.table import BlockTable

MASKED = (
    "attention has a mask that is not text padding; a plan's block table knows nothing of such a "
    "mask"
)

_numbers = count()
_layers: WeakValueDictionary[int, LayerState] = WeakValueDictionary()


@dataclass
class LayerState:
    """What one layer runs in the forward pass that is under way. Empty between passes.

    Args:
        tables: the layer's block table, or one per sample of the batch if their text lengths
            differ. Empty: the stock processor runs.
        tokens: all tokens of a sample, text padding included.
        padding_end: where text padding ends among them; `tables` leave it out.
        masks_padding: whether a mask in this pass hides nothing but text padding.
        keys_alone: how many of the first and of the last tokens have keys, but no queries.
        rows: captured level maps that the tables lack, because those of all layers are too big.
        backend: the operator's backend, or None to choose.
        listeners: called after each attention through the operator with q and k as attention sees
            them, v and the output, all (batch, tokens, heads, head_dim), and their grid.
        timer: called right before and right after each attention through the operator.
        in_pass: whether the transformer's pre-hook has run for this pass.
        is_caller: whether the calling code is part of that pass; a pass that was broken off leaves
            `in_pass` set.
        report: says once that a call runs dense, and why; raises under `strict`.
        stock: the layer's stock processor, whose attention backend runs calls that the tables do
            not describe.

    Attributes:
        sparse: whether there are tables; a compiled graph depends on this alone.
        number: int64 (), the layer's number in compiled graphs.
    """

    tables: tuple[BlockTable, ...] = ()
    tokens: int = 0
    padding_end: int = 0
    masks_padding: bool = False
    keys_alone: tuple[int, int] = (0, 0)
    rows: tuple[CapturedRows, ...] = ()
    backend: str | None = None
    listeners: tuple[Callable[..., None], ...] = ()
    timer: Callable[[], None] | None = None
    in_pass: bool = False
    is_caller: Callable[[], bool] = lambda: True
    report: Callable[[str], None] | None = None
    stock: Any = None
    sparse: bool = field(init=False)
    number: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sparse = bool(self.tables)
        self.number = torch.tensor(next(_numbers), device="cpu")
        _layers[int(self.number)] = self


def attend(
    state: LayerState,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prologue: Prologue | None = None,
) -> torch.Tensor:
    """Attention through a layer's tables. Text padding is left out, its rows are 0.

    Args:
        state: the layer.
        query: (batch, tokens, heads, head_dim), in the model's token order.
        key: same shape.
        value: same shape.
        prologue: norms and rotation that queries and keys have not been through yet.

    Returns:
        Same shape as `query`.

    Raises:
        RuntimeError: if the batch is not the one that the transformer was called with, or if a
            CUDA graph is being captured: it would replay this pass's tables in every step.
    """
    prologue = prologue or Prologue()
    query, key, value = in_autocast(query, key, value)
    if torch.compiler.is_compiling():
        return attend_layer(query, key, value, None, state.number, *prologue.parts())
    if is_captured(query):
        raise RuntimeError(
            "sparse attention of a pipeline cannot be captured in a CUDA graph, which would replay "
            "one step's tables in all steps; with torch.compile(mode='reduce-overhead') use torch "
            "2.9 or newer, whose CUDA graphs leave it out, or another mode"
        )
    tables = state.tables
    if len(tables) not in (1, len(query)):
        raise RuntimeError(
            f"the transformer was called with {len(tables)} samples of different text lengths, "
            f"but attention sees {len(query)}: something changed the batch in between, such as "
            "FasterCache, which cannot be used with guidance in one batch"
        )
    if len(tables) == 1:
        return _attend_samples(state, query, key, value, tables[0], prologue)
    samples = zip(query.split(1), key.split(1), value.split(1), tables, strict=True)
    return torch.cat([_attend_samples(state, *sample, prologue) for sample in samples])


def attend_or_stock(
    state: LayerState,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    prologue: Prologue | None = None,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """`attend`, or stock attention for a call that the layer's tables do not describe.

    Args:
        state: the layer.
        query: (batch, tokens, heads, head_dim).
        key: same shape, with the tokens that are keys alone, and with fewer heads if several
            heads of queries share one (`enable_gqa`). Cross-attention runs stock.
        value: same shape as `key`.
        mask: text padding, which the layer's tables leave out. Any other mask runs stock.
        prologue: see `attend`.
        args: for stock attention.
        kwargs: for stock attention.
    """
    options = {name: given for name, given in kwargs.items() if name != "enable_gqa"}
    if torch.compiler.is_compiling() and not (args or any(options.values())):
        query, key, value = in_autocast(query, *for_every_head(query, key, value))
        parts = (prologue or Prologue()).parts()
        return attend_layer(query, key, value, mask, state.number, *parts)
    tokens, (first, last) = state.tokens, state.keys_alone
    sees_all = key.shape[1] == tokens == query.shape[1] + first + last
    sees_all = sees_all and not kwargs.get("is_causal", False)
    if sees_all and (mask is None or state.masks_padding):
        key, value = for_every_head(query, key, value)
        if not first and not last:
            return attend(state, query, key, value, prologue)
        query = torch.nn.functional.pad(query, (0, 0, 0, 0, first, last))  # exact rows, dropped
        return attend(state, query, key, value, prologue)[:, first : tokens - last]
    if sees_all and state.report is not None:
        state.report(MASKED)
    if prologue is not None:
        query, key = prologue.apply(query, key)
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    stock: Callable[..., torch.Tensor] = dispatch_attention_fn
    backend = state.stock._attention_backend
    return stock(query, key, value, mask, *args, backend=backend, **kwargs)


def for_every_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values repeated where several heads of queries share them."""
    shared = query.shape[2] // key.shape[2]
    if shared == 1:
        return key, value
    return key.repeat_interleave(shared, 2), value.repeat_interleave(shared, 2)


@torch.library.custom_op("ajour::attend_layer", mutates_args=(), tags=TAGS)
def attend_layer(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    number: torch.Tensor,
    tensors: list[torch.Tensor | None],
    places: list[int],
    eps: list[float],
) -> torch.Tensor:
    """`attend_or_stock` for torch.compile, with the layer's number and the prologue as its parts.

    How many tokens there are is compared here: in a graph each number would be a constant.
    """
    prologue = Prologue.of(tensors, places, eps)
    out = attend_or_stock(_layers[int(number)], query, key, value, mask, prologue)
    return out.contiguous()


@attend_layer.register_fake
def _(query: torch.Tensor, *args: object) -> torch.Tensor:
    return query.new_empty(query.shape)


def _attend_samples(
    state: LayerState,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    table: BlockTable,
    prologue: Prologue,
) -> torch.Tensor:
    length, end = table.grid.seq_len, state.padding_end
    if length < state.tokens and end < state.tokens:
        query, key = prologue.apply(query, key)  # it counts tokens with padding among them
        prologue = Prologue()
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
        q, k = prologue.apply(q, k)
        for listener in state.listeners:
            listener(q, k, v, out, table.grid)
    return with_padding(out, state.tokens, end)


def is_captured(x: torch.Tensor) -> bool:
    """Whether what is computed with a tensor goes into a CUDA graph."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def in_autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors in the dtype of autocast where it is on, as PyTorch casts attention's inputs."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


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
