"""What the tabs share: jobs behind a button, with a stop button and a status line."""

from __future__ import annotations

from collections.abc import Callable, Iterator  # noqa: TC003 - gradio reads annotations
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo.device import DONE, RUNNING, Job, Refused
from ajour.demo.render import note, render
from ajour.demo.visitors import Unheard

if TYPE_CHECKING:
    from ajour.demo.server import Site

Updates = dict[Any, Any]
"""New values of components."""

QUICK: dict[str, Any] = {
    "concurrency_limit": 8, "concurrency_id": "quick", "show_progress": "hidden",
    "api_visibility": "private",
}  # fmt: skip
"""Options of events that never wait for the device."""

DRAWING = QUICK | {"concurrency_limit": 2, "concurrency_id": "drawing"}
"""Options of events that read or draw a plan, which takes a core up to about ten seconds."""


class JobButtons:
    """A button that starts a job and a button that stops it, side by side.

    Args:
        name: of the kind of job; a visitor has one job of each kind at a time.
        text: of the button that starts it.
        small: whether the buttons are small and plain.
    """

    def __init__(self, name: str, text: str, small: bool = False) -> None:
        self.name = name
        size = "sm" if small else "lg"
        with gr.Row():
            self.start = gr.Button(
                text, variant="secondary" if small else "primary", size=size, elem_id=name,
                min_width=140,
            )  # fmt: skip
            self.stop = gr.Button(
                "Stop", interactive=False, size=size, elem_id=f"stop-{name}", min_width=80
            )

    def wire(
        self,
        site: Site,
        status: gr.HTML,
        inputs: list[Any],
        outputs: list[Any],
        submit: Callable[..., tuple[Callable[[Any, Job], Any], float | None]],
        show: Callable[[Job], Updates],
        finish: Callable[..., Updates],
        stopped: str = "Nothing of this run was kept.",
        begin: Callable[[], Updates] = dict,
    ) -> Any:
        """Connect the buttons.

        Args:
            site: the server.
            status: the line that shows the job's state.
            inputs: components whose values `submit` gets.
            outputs: components that `show` and `finish` update, besides the status.
            submit: from the inputs' values to the work and its time limit in seconds. A
                `ValueError` or `TypeError` is shown as the status.
            show: the updates for the progress of a running job.
            finish: the updates for the result of a job that is done; also gets the inputs' values.
            stopped: what to say after a stop.
            begin: the updates when a job has been accepted.

        Returns:
            The event of a job that has ended.
        """

        def run(request: gr.Request, *values: Any) -> Iterator[Updates]:
            session = str(request.session_hash)
            try:
                work, seconds = submit(*values)
                site.visitors.wait_for_listener(session)
                address = site.visitors.address(session) or ""
                job = site.device.submit(self._owner(request), work, seconds, address)
            except (Refused, Unheard, TypeError, ValueError) as error:  # PlanError is a ValueError
                yield {status: note(str(error), "bad")}
                return
            yield {
                self.start: gr.Button(interactive=False),
                self.stop: gr.Button(interactive=True),
                **begin(),
            }
            try:
                for state in job.watch():
                    ahead = site.device.ahead(state)
                    if state.state == RUNNING and state.progress and not state.stopping:
                        yield show(state)
                    else:
                        yield {status: render("state", job=state, ahead=ahead, stopped=stopped)}
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
            running = site.device.stop(self._owner(request))
            return gr.skip() if running else note("Nothing is running.")

        self.start.click(None, js=f"() => ajourScrollTo('{status.elem_id}')")
        self.stop.click(stop, None, status, **QUICK)
        return self.start.click(
            run, inputs, [status, self.start, self.stop, *outputs],
            show_progress="hidden", concurrency_limit=16, concurrency_id="runs",
            api_visibility="private",
        )  # fmt: skip

    def _owner(self, request: gr.Request) -> str:
        return f"{request.session_hash}/{self.name}"
