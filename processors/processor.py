"""The attention processor that stands in for a stock one."""

from __future__ import annotations

import copy
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch

from ajour.processors.guiders import attention_is_skipped, register
from ajour.processors.layer import attend

if TYPE_CHECKING:
    from ajour.processors.layer import LayerState
    from ajour.prologue import Prologue

OUTSIDE = "the transformer's forward() was called directly, so no hook ran; call the module itself"


class SparseProcessor:
    """Runs the stock processor, or block-sparse attention while its layer has a table.

    A plain object, so that nothing enters the model's state_dict. A copy or an unpickled one is
    the stock processor again.

    Args:
        stock: the processor that this one stands in for.
        state: the layer's state, which the runtime fills before each pass.
    """

    def __init_subclass__(cls) -> None:
        """Diffusers passes on the arguments that a processor's `__call__` names: those of `run`."""

        @wraps(cls.run)
        def call(self: SparseProcessor, attn: Any, *args: Any, **kwargs: Any) -> Any:
            return SparseProcessor.__call__(self, attn, *args, **kwargs)

        cls.__call__ = call  # type: ignore[method-assign]

    def __init__(self, stock: Any = None, state: LayerState | None = None) -> None:
        if stock is None or state is None:  # diffusers makes processors anew for IP adapters
            raise RuntimeError(
                f"{type(self).__name__} stands in for a stock processor and cannot be made without "
                "it; call ajour.disable(pipe) before processors are replaced, for example by "
                "loading or unloading an IP adapter, then enable again"
            )
        kinds: tuple[Any, Any] = type(self), type(stock)
        register(*kinds)
        self.stock = stock
        self.state = state
        state.stock = stock

    def __call__(self, attn: Any, *args: Any, **kwargs: Any) -> Any:
        """The stock processor's result, with attention through the layer's table if it has one."""
        state = self.state
        in_pass = state.in_pass and (torch.compiler.is_compiling() or state.is_caller())
        if not in_pass and state.report is not None:
            state.report(OUTSIDE)
            return self.stock(attn, *args, **kwargs)
        if not state.sparse or attention_is_skipped():
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
        """Attention through the layer's tables, see `attend`."""
        return attend(self.state, query, key, value, prologue)

    def __copy__(self) -> Any:
        return copy.copy(self.stock)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.stock, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self.stock,)

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
