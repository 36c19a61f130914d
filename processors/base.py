"""What every model family provides: its self-attention layers, their grid, and a processor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ajour.grid import TokenGrid
    from ajour.table import BlockTable


@dataclass
class LayerContext:
    """What a layer's processor is told before each forward pass of its transformer.

    Args:
        table: the layer's block table, or None to run the stock processor.
        backend: the backend asked for, or None to choose.
    """

    table: BlockTable | None = None
    backend: str | None = None


class SparseProcessor:
    """An attention processor that runs the stock one until its context holds a table.

    A plain object, so that nothing enters the model's state_dict. diffusers sets
    `_attention_backend` and `_parallel_config` on processors; both are passed on to the stock one.

    Args:
        stock: the processor that this one stands in for.
        context: the layer's context, shared with the runtime that fills it.
    """

    def __init__(self, stock: Any, context: LayerContext) -> None:
        self.stock = stock
        self.context = context

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

    processor: ClassVar[type[SparseProcessor]]
    """The family's processor."""

    @abstractmethod
    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """The self-attention modules in order of depth; each has `.processor` and `.heads`."""

    @abstractmethod
    def head_dim(self, transformer: torch.nn.Module) -> int:
        """Channels of a head."""

    @abstractmethod
    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """The token grid of a call of the transformer, from shapes only."""

    @abstractmethod
    def obstacle(self, layer: Any) -> str | None:
        """Why a layer has to run dense as it is set up now, or None."""
