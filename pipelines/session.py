"""What `enable` leaves on a pipeline and its transformers."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from ajour.pipelines.locate import transformers_of

if TYPE_CHECKING:
    from ajour.pipelines.compiling import CompiledBlocks
    from ajour.pipelines.runtime import TransformerRuntime
    from ajour.pipelines.steps import Run

_ATTRIBUTE = "_ajour"


class Session:
    """One call of `enable`: a runtime for each transformer.

    A copy of a pipeline or transformer has no session: it runs stock.

    Args:
        runtimes: of the transformers.
        holders: the pipeline and its transformers.
        blocks: those that were compiled, if any were.
    """

    def __init__(
        self,
        runtimes: list[TransformerRuntime],
        holders: list[Any],
        blocks: CompiledBlocks | None = None,
    ) -> None:
        self.runtimes = runtimes
        self._blocks = blocks
        self.released = False
        self._releasing = threading.Lock()
        self._holders = [weakref.ref(holder) for holder in holders]
        for holder in holders:
            object.__setattr__(holder, _ATTRIBUTE, self)

    @property
    def latest(self) -> TransformerRuntime:
        """The runtime of the last forward pass, or the first runtime if there was none."""
        return max(self.runtimes, key=lambda runtime: runtime.last_pass)

    @property
    def latest_run(self) -> Run | None:
        """The run of the last forward pass of any transformer."""
        return self.latest.latest_run

    @property
    def steps(self) -> tuple[str, ...]:
        """The assignment that ran in every step done in the latest run, `dense` for stock."""
        run = self.latest_run
        return run.steps if run is not None else ()

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """Noise levels of all steps of the latest run."""
        run = self.latest_run
        return run.noise_levels if run is not None else ()

    @property
    def step(self) -> int | None:
        """Index of the step that the running or next pass belongs to; None if not known."""
        run = self.latest_run
        return run.step if run is not None else None

    @property
    def position(self) -> int:
        """Index of that step among the steps that the run computes, which need not be all."""
        run = self.latest_run
        return run.steps_done if run is not None else 0

    def runtime_of(self, transformer: Any) -> TransformerRuntime:
        """The runtime of one of the transformers."""
        return next(r for r in self.runtimes if r.transformer is transformer)

    def release(self) -> None:
        """Undo everything, after the end of a forward pass of another thread."""
        with self._releasing:
            if not self.released:
                self._undo()

    def _undo(self) -> None:
        for runtime in self.runtimes:
            runtime.release()
        self.released = True
        if self._blocks is not None:
            self._blocks.release()
        for reference in self._holders:
            holder = reference()
            if holder is not None and vars(holder).get(_ATTRIBUTE) is self:
                del holder.__dict__[_ATTRIBUTE]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def sessions_of(pipe: Any) -> list[Session]:
    """All sessions of a pipeline and its transformers, or of a transformer."""
    holders = (pipe, *transformers_of(pipe))
    sessions = (vars(holder).get(_ATTRIBUTE) for holder in holders)
    return list(dict.fromkeys(s for s in sessions if s is not None and not s.released))


def session_of(pipe: Any) -> Session:
    """The session of a pipeline or transformer; of transformers enabled one by one, one for all.

    Raises:
        RuntimeError: if not enabled.
    """
    sessions = sessions_of(pipe)
    if not sessions:
        raise RuntimeError("not enabled; call ajour.enable(pipe, plan) first")
    if len(sessions) == 1:
        return sessions[0]
    return Session([runtime for session in sessions for runtime in session.runtimes], [])
