"""One processor for every family: the stock processor's code, with attention through our operator.

Nearly every attention processor of diffusers hands q, k and v to `dispatch_attention_fn`. Its
`__call__` is made again once per class as a function whose globals are a copy of its module's, with
`dispatch_attention_fn` bound to `dispatch`. No module is patched.
"""

from __future__ import annotations

import inspect
import types
from functools import cache
from typing import TYPE_CHECKING, Any

from diffusers.models.attention_dispatch import dispatch_attention_fn

from ajour.processors.processor import SparseProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

DISPATCH = "dispatch_attention_fn"
MASKED = (
    "attention has a mask that is not text padding; a plan's block table knows nothing of such a "
    "mask"
)


@cache
def stand_in_for(stock: Any) -> type[SparseProcessor]:
    """The processor class that stands in for a stock one.

    Args:
        stock: a class whose `__call__` uses `dispatch_attention_fn`.

    Raises:
        TypeError: if it does not.
    """
    call: Any = stock.__call__
    if DISPATCH not in call.__code__.co_names:
        raise TypeError(f"{stock.__name__} does not attend through {DISPATCH}")
    names = call.__globals__ | {DISPATCH: dispatch}
    names.pop("__name__")  # torch.compile would look this function's globals up in the module
    again = types.FunctionType(
        call.__code__, names, call.__name__, call.__defaults__, call.__closure__
    )
    again.__kwdefaults__ = call.__kwdefaults__

    class StockProcessor(SparseProcessor):
        """The stock processor's code with our operator in the place of its attention."""

        def __call__(self, attn: Any, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(attn, *args, **kwargs)

        def run(self, attn: Any, *args: Any, **kwargs: Any) -> Any:
            return again(View(self), attn, *args, **kwargs)

    # diffusers passes on the keyword arguments that the signature names.
    StockProcessor.__call__.__signature__ = inspect.signature(call)  # type: ignore[attr-defined]
    StockProcessor.__name__ = f"Sparse{stock.__name__}"
    return StockProcessor


class View:
    """The `self` of a stock processor's code: the stock processor, but for its backend.

    Args:
        processor: what `dispatch` gets as the backend.
    """

    def __init__(self, processor: SparseProcessor) -> None:
        self._attention_backend = processor
        self._parallel_config = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attention_backend.stock, name)


def dispatch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *args: Any,
    backend: Any,
    parallel_config: Any = None,
    **kwargs: Any,
) -> torch.Tensor:
    """What the code of a stock processor calls in the place of `dispatch_attention_fn`.

    Args:
        query: (batch, tokens, heads, head_dim).
        key: same shape; for cross-attention another number of tokens, which runs stock.
        value: same shape as `key`.
        attn_mask: text padding, which the layer's tables leave out. Any other mask runs stock.
        args: for stock attention.
        backend: our processor, see `View`.
        parallel_config: None; a transformer under context parallelism runs stock.
        kwargs: for stock attention.
    """
    processor: SparseProcessor = backend
    state = processor.state
    sees_all = query.shape[1] == key.shape[1] == state.tokens
    if sees_all and (attn_mask is None or state.masks_padding):
        return processor.attend(query, key, value)
    if sees_all and state.report is not None:
        state.report(MASKED)
    stock: Callable[..., torch.Tensor] = dispatch_attention_fn
    return stock(
        query, key, value, attn_mask, *args, backend=processor._attention_backend, **kwargs
    )
