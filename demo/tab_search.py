"""The Search tab: a small search with a time limit, and its frontier as it fills in."""

from __future__ import annotations

import time
from collections.abc import Iterator  # noqa: TC003 - gradio reads annotations at run time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo import pieces
from ajour.demo.charts import Series, chart
from ajour.demo.device import DONE, RUNNING, STOPPED, Refused
from ajour.demo.request import MOST_STEPS, Request
from ajour.demo.searching import Found, SearchNews, search
from ajour.demo.tab_generate import about, owner_of, quick, show, stop_run
from ajour.search.settings import Target

if TYPE_CHECKING:
    from ajour.demo.server import Site

MOST_MINUTES = 30
KINDS = {"speedup": ("Speed-up", 1.3), "psnr": ("PSNR, dB", 28), "density": ("Density", 0.4)}
"""Targets by kind: name and usual value."""


@dataclass(frozen=True)
class SearchTab:
    """What the page needs of this tab."""

    fields: list[Any]
    start: gr.Button
    stop: gr.Button
    use: gr.Button
    look: gr.Button
    status: gr.HTML
    frontier: gr.HTML


def build(site: Site) -> SearchTab:
    """Lay the tab out, within a `gr.Tab`."""
    model = site.model
    with gr.Row(elem_classes="aj-columns"):
        with gr.Column(scale=2, min_width=300):
            kind = gr.Radio(
                [(name, key) for key, (name, _) in KINDS.items()], value="density", label="Target"
            )
            value = gr.Number(KINDS["density"][1], label="Value", elem_id="target")
            minutes = gr.Slider(
                0.5, MOST_MINUTES, 5, step=0.5, label="Time limit, minutes", elem_id="minutes"
            )
            size = gr.Radio(
                [(f"{name}: {one}", name) for name, one in model.sizes.items()],
                value=next(iter(model.sizes)), label="Size",
            )  # fmt: skip
            steps = gr.Slider(4, MOST_STEPS, min(model.steps, 8), step=1, label="Steps")
            gr.HTML(
                '<p class="aj-small">The errors of every pattern on every head are measured on the '
                "prompt and the seed of the Generate tab, plans are verified on another one. For a "
                "plan to keep, give the command <code>ajour search</code> more prompts.</p>"
            )
            with gr.Row():
                start = gr.Button("Search", variant="primary", elem_id="search", min_width=140)
                stop = gr.Button("Stop", interactive=False, elem_id="stop-search", min_width=100)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(
                '<p class="aj-note">A search takes a few minutes at the smallest size. What it '
                "finds can be used at once.</p>",
                elem_id="search-status", elem_classes="aj-live",
            )  # fmt: skip
            frontier = gr.HTML(elem_id="frontier")
            with gr.Row():
                use = gr.Button(
                    "Use it in Generate", interactive=False, elem_id="use-found", min_width=140
                )
                look = gr.Button(
                    "Look at it in Plan", interactive=False, elem_id="look-found", min_width=140
                )
    kind.input(lambda key: KINDS.get(key, ("", 1.0))[1], kind, value, **quick())
    return SearchTab([kind, value, minutes, size, steps], start, stop, use, look, status, frontier)


def wire(site: Site, tab: SearchTab, shown: gr.State, form: list[Any], mine: gr.HTML) -> Any:
    """Connect the buttons.

    Args:
        site: the server.
        tab: what `build` gave.
        shown: the plan that is shown, which a search replaces.
        form: fields of the Generate tab.
        mine: its line on the plan that is shown.

    Returns:
        The event of a finished search.
    """

    def run(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        kind, value, minutes, size, steps, prompt, seed, *_, guidance = values
        try:
            target, limit = checked_target(kind, value), checked_limit(minutes)
            if size not in site.model.sizes:
                raise ValueError(f"unknown size {size!r}")
            asked = Request.of(prompt, seed, steps, *site.model.sizes[size], guidance)
            job = site.device.submit(
                owner_of(request, "search"),
                lambda pipe, job: search(pipe, job, target, asked, site.model, limit),
                limit,
            )
        except (Refused, TypeError, ValueError) as error:
            yield {tab.status: pieces.note(str(error), "bad")}
            return
        yield {tab.start: gr.Button(interactive=False), tab.stop: gr.Button(interactive=True)}
        last: dict[Any, Any] = {}
        try:
            for now in job.watch():
                news: SearchNews | None = now.news
                line, level = pieces.state_line(now, site.device.ahead(now))
                if now.state == RUNNING and news is not None and not now.stopping:
                    news = replace(news, seconds=time.monotonic() - now.started)
                    yield {tab.status: progress(news), tab.frontier: figure(news, target)}
                else:
                    yield {tab.status: pieces.note(line, level)}
        finally:
            job.stop()
        if job.state == DONE:
            found: Found = job.result
            last = {
                tab.status: outcome(found),
                tab.frontier: figure(found.news, target, found),
                tab.use: gr.Button(interactive=True),
                tab.look: gr.Button(interactive=True),
                shown: found.shown,
                mine: about(found.shown),
            }
        elif job.state == STOPPED:
            text = "Stopped, or out of time, before a plan was verified: give it more time."
            last = {tab.status: pieces.note(text)}
        buttons = {tab.start: gr.Button(interactive=True), tab.stop: gr.Button(interactive=False)}
        yield last | buttons

    def stop(request: gr.Request) -> Any:
        return stop_run(site, owner_of(request, "search"))

    tab.start.click(None, js=show("search-status"))
    tab.stop.click(stop, None, tab.status, **quick())
    return tab.start.click(
        run,
        [*tab.fields, *form],
        [tab.status, tab.frontier, tab.start, tab.stop, tab.use, tab.look, shown, mine],
        show_progress="hidden",
        concurrency_limit=16,
        concurrency_id="runs",
        api_visibility="private",
    )


def checked_target(kind: Any, value: Any) -> Target:
    """A target of the form's fields.

    Raises:
        ValueError: if it is out of range.
    """
    if not isinstance(value, int | float):
        raise ValueError(f"the target's value must be a number, got {value!r}")
    return Target(str(kind), float(value))


def checked_limit(minutes: Any) -> float:
    """A time limit in seconds.

    Raises:
        ValueError: if it is out of range.
    """
    if not isinstance(minutes, int | float) or not 0 < minutes <= MOST_MINUTES:
        raise ValueError(f"the time limit must be over 0 and up to {MOST_MINUTES} minutes")
    return 60.0 * minutes


def progress(news: SearchNews) -> str:
    """Where a search is."""
    share = min(1.0, news.seconds / news.limit)
    line = (
        f"{news.stage}: {news.units} pieces of work done, {len(news.tried)} plans verified, "
        f"{news.seconds:.0f} of at most {news.limit:.0f} s."
    )
    return (
        f'{pieces.note(line)}<progress aria-label="time spent" max="1" value="{share:.3f}">'
        "</progress>"
    )


def outcome(found: Found) -> str:
    """What a search ended with."""
    boxes = [(f"{found.speedup:.2f}x", "speed-up, measured"), (f"{found.psnr_db:.1f} dB", "PSNR")]
    if found.density is not None:
        boxes.append((f"{found.density:.2f}", "density over all steps"))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for value, name in boxes)
    if found.density is not None and found.density > 0.999:
        line = "Nothing sparse was faster than dense attention at this size; try a larger one."
        kind = "bad"
    elif found.met:
        line, kind = f"The target of {found.target} is met.", "good"
    else:
        line, kind = f"The target of {found.target} is missed; this is the nearest plan.", "bad"
    if not found.ended:
        line = f"Ended early, with the best plan so far. {line}"
    return f'{pieces.note(line, kind)}<dl class="aj-cards">{items}</dl>'


def figure(news: SearchNews, target: Target, found: Found | None = None) -> str:
    """The frontier: predicted as a line, verified plans as dots, the chosen one as a diamond."""
    chosen = [] if found is None else [(found.speedup, found.psnr_db)]
    tried = [point for point in news.tried if point not in chosen]
    series = [
        Series("predicted frontier", news.frontier, "line"),
        Series("verified", tried, "dots", [f"{x:.2f}x, {y:.1f} dB" for x, y in tried]),
        Series("chosen", chosen, "stars", [f"{x:.2f}x, {y:.1f} dB" for x, y in chosen]),
    ]
    title = f"Speed-up against PSNR, for a target of {target}: {len(news.tried)} plans verified"
    return chart(title, "speed-up of denoising", "PSNR, dB", series)
