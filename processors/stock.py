"""One processor for every family: the stock processor's code, with attention through our operator.

Nearly every attention processor of diffusers hands q, k and v to `dispatch_attention_fn`. Its
`__call__` is made again once per class as a function whose globals are a copy of its module's, with
`dispatch_attention_fn` bound to `dispatch`. No module is patched.
"""

from __future__ import annotations

import inspect
import types
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from ajour.processors.layer import attend_or_stock
from ajour.processors.processor import SparseProcessor

if TYPE_CHECKING:
    import torch

    from ajour.processors.fused import Fusion
    from ajour.prologue import Prologue

DISPATCH = "dispatch_attention_fn"


@cache
def stand_in_for(stock: Any, fusion: Fusion | None = None) -> type[SparseProcessor]:
    """The processor class that stands in for a stock one.

    Args:
        stock: a class whose `__call__` uses `dispatch_attention_fn`.
        fusion: norms and rotation that the operator computes in the place of the stock code.

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
    _, _, *parameters = inspect.signature(call).parameters  # all but `self` and `attn`

    class StockProcessor(SparseProcessor):
        """The stock processor's code with our operator in the place of its attention."""

        @wraps(call)  # which `__call__` then looks like
        def run(self, attn: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            if fusion is None:
                return again(View(self), attn, *args, **kwargs)
            arguments = dict(zip(parameters, args, strict=False)) | kwargs
            attn, prologue = fusion.take(attn, arguments)
            return again(View(self, prologue), attn, **arguments)

    StockProcessor.__name__ = f"Sparse{stock.__name__}"
    return StockProcessor


class View:
    """The `self` of a stock processor's code: the stock processor, but for its backend.

    That is our processor, and the norms and rotation that the code leaves to the operator.
    """

    def __init__(self, processor: SparseProcessor, prologue: Prologue | None = None) -> None:
        self._attention_backend = processor, prologue
        self._parallel_config = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attention_backend[0].stock, name)


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
        key: see `attend_or_stock`.
        value: same shape as `key`.
        attn_mask: see `attend_or_stock`.
        args: for stock attention.
        backend: our processor and its prologue, see `View`.
        parallel_config: None; a transformer under context parallelism runs stock.
        kwargs: for stock attention.
    """
    processor: SparseProcessor
    processor, prologue = backend
    return attend_or_stock(processor.state, query, key, value, attn_mask, prologue, *args, **kwargs)
