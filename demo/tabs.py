"""What the tabs share: jobs behind a button, with a stop button and a status line."""

from __future__ import annotations

from collections.abc import Callable, Iterator  # noqa: TC003 - gradio reads annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo.device import DONE, RUNNING, Job, Refused
from ajour.demo.render import note
from ajour.demo.views import state_note

if TYPE_CHECKING:
    from ajour.demo.server import Site

Updates = dict[Any, Any]
"""New values of components."""

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of events that never wait for the device."""


@dataclass(frozen=True)
class JobButtons:
    """The controls of one kind of job.

    Attributes:
        name: of the kind; a visitor has one job of each kind at a time.
        start: starts a job.
        stop: stops it.
        status: the line that shows its state.
        inputs: components whose values `submit` gets.
        outputs: components that `show` and `finish` update, besides the status.
        stopped: what to say after a stop.
    """

    name: str
    start: gr.Button
    stop: gr.Button
    status: gr.HTML
    inputs: list[Any]
    outputs: list[Any]
    stopped: str = "Nothing of this run was kept."

    def wire(
        self,
        site: Site,
        submit: Callable[..., tuple[Callable[[Any, Job], Any], float | None]],
        show: Callable[[Job], Updates],
        finish: Callable[..., Updates],
    ) -> Any:
        """Connect the buttons.

        Args:
            site: the server.
            submit: from the inputs' values to the work and its time limit in seconds. A
                `ValueError` or `TypeError` is shown as the status.
            show: the updates for the progress of a running job.
            finish: the updates for the result of a job that is done; also gets the inputs' values.

        Returns:
            The event of a job that has ended.
        """

        def run(request: gr.Request, *values: Any) -> Iterator[Updates]:
            try:
                work, seconds = submit(*values)
                job = site.device.submit(self._owner(request), work, seconds)
            except (Refused, TypeError, ValueError) as error:  # PlanError is a ValueError
                yield {self.status: note(str(error), "bad")}
                return
            yield {self.start: gr.Button(interactive=False), self.stop: gr.Button(interactive=True)}
            try:
                for state in job.watch():
                    ahead = site.device.ahead(state)
                    if state.state == RUNNING and state.progress and not state.stopping:
                        yield show(state)
                    else:
                        yield {self.status: state_note(state, ahead, self.stopped)}
            finally:
                job.stop()  # the page may have been closed; no effect on a job that has ended
            updates = finish(job.result, *values) if job.state == DONE else {}
            yield {
                self.start: gr.Button(interactive=True),
                self.stop: gr.Button(interactive=False),
                **updates,
            }

        def stop(request: gr.Request) -> Any:
            # A stopped job shows its state itself: two writers of one line could overtake each
            # other.
            stopped = site.device.stop(self._owner(request))
            return gr.skip() if stopped else note("Nothing is running.")

        self.start.click(None, js=scroll_to(self.status.elem_id))
        self.stop.click(stop, None, self.status, **QUICK)
        return self.start.click(
            run, self.inputs, [self.status, self.start, self.stop, *self.outputs],
            show_progress="hidden", concurrency_limit=16, concurrency_id="runs",
            api_visibility="private",
        )  # fmt: skip

    def _owner(self, request: gr.Request) -> str:
        return f"{request.session_hash}/{self.name}"


def scroll_to(element: str) -> str:
    """JavaScript that scrolls to an element if the page is one narrow column."""
    return (
        f"() => {{ if (innerWidth < 720) setTimeout(() => document.getElementById('{element}')"
        ".scrollIntoView({ behavior: 'smooth' }), 400); }"
    )
