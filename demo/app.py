"""The page with its tabs, and the server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator  # noqa: TC003 - gradio reads annotations
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

# Before gradio is imported, so that it sends nothing.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from ajour.demo import results_page
from ajour.demo.device import Device
from ajour.demo.door import Door
from ajour.demo.exchange import wire_found, wire_uploads
from ajour.demo.guard import Guard, KnownHost, host_names
from ajour.demo.model import sizes_of, steps_of
from ajour.demo.preview import Colours
from ajour.demo.render import render
from ajour.demo.run import Runner
from ajour.demo.server import Site
from ajour.demo.store import EXAMPLE, Store
from ajour.demo.tab_generate import GenerateTab
from ajour.demo.tab_plan import PlanTab
from ajour.demo.tab_search import SearchTab
from ajour.pipelines.drawing import KIND_COLOURS, LEVEL_COLOURS

if TYPE_CHECKING:
    from ajour.demo.model import Model

SCRIPTS = ("compare.js", "heads.js", "live.js", "upload.js")

MOST_BODY = 4 * 2**20
"""Bytes of a request; JSON of an uploaded plan is at most twice as long as the plan."""

MOST_SESSIONS = 128
"""Pages whose plan is kept in memory, open or closed; the oldest is dropped first."""


def open_site(model: Model, root: Path) -> Site:
    """Start loading a model; wait for a model that was given by path.

    Args:
        model: the model.
        root: the folder of files that are served.

    Raises:
        RuntimeError: if a model given by path cannot be loaded.
    """
    device = Device(model.load)
    if model.path is not None:
        device.ready.wait()
        if device.error:
            device.close()
            raise RuntimeError(f"cannot load {model.path}: {device.error}")
        steps, guidance = steps_of(device.pipe)
        model = replace(model, sizes=sizes_of(device.pipe), steps=steps, guidance=guidance)
    store = Store(root)
    file = EXAMPLE / "colours.json"
    colours = Colours.load(file) if model.path is None and file.is_file() else None
    return Site(model, device, store, Runner(model, store, colours), store.example())


def build(site: Site) -> gr.Blocks:
    """The page of a site."""
    with gr.Blocks(title="ajour", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(render("header"))
        state = gr.HTML(site.state(), elem_id="model-state", elem_classes="aj-live")
        shown = gr.State(site.first_plan)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Generate", id="generate"):
                generate = GenerateTab(site)
            with gr.Tab("Plan", id="plan"):
                plan = PlanTab(site)
            with gr.Tab("Search", id="search"):
                search = SearchTab(site)
            with gr.Tab("Benchmark", id="benchmark"):
                gr.HTML(results_page.page(results_page.results_folder()), elem_id="results")
        plan.wire(shown, generate.form)

        wire_uploads(site, shown, generate, plan)
        for event in (
            generate.wire(shown),
            search.wire(shown, generate.form, generate.shown_line),
        ):
            plan.refresh_after(event, shown)
        wire_found(site, shown, tabs, generate, plan, search)

        def loading() -> Iterator[str]:
            yield site.state()
            site.device.ready.wait()
            yield site.state()

        def leave(request: gr.Request) -> None:
            site.device.stop(str(request.session_hash))

        page.load(
            loading, None, state, show_progress="hidden", api_visibility="private",
            concurrency_limit=16, concurrency_id="loading",
        )  # fmt: skip
        page.unload(leave)
    page.queue(max_size=64, default_concurrency_limit=8, api_open=False)
    return page


@contextmanager
def serving(
    model: Model,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    open_browser: bool = False,
    quiet: bool = True,
    names: Iterable[str] = (),
) -> Iterator[tuple[gr.Blocks, Site]]:
    """Serve the page within the block.

    Args:
        model: the model.
        host: address to listen on.
        port: the first free port from 7860 on if None.
        share: also at a public address, through gradio's servers.
        open_browser: open the page in a browser.
        quiet: do not print the address.
        names: host names by which visitors reach the page, besides localhost and the machine's own.

    Raises:
        RuntimeError: if a model given by path cannot be loaded.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ajour-demo-"))
        root = Path(folder).resolve()
        places = {"GRADIO_TEMP_DIR": root, "GRADIO_EXAMPLES_CACHE": root / "examples-cache"}
        for name, place in places.items():
            if name in os.environ:
                stack.callback(os.environ.__setitem__, name, os.environ[name])
            else:
                stack.callback(os.environ.pop, name, None)
            os.environ[name] = str(place)
        site = open_site(model, root)
        stack.callback(site.device.close)
        page = build(site)
        stack.callback(page.close, verbose=False)
        static = files("ajour.demo").joinpath("static")
        scripts = (f"<script>{static.joinpath(name).read_text()}</script>" for name in SCRIPTS)
        page.launch(
            server_name=host, server_port=port, share=share, inbrowser=open_browser,
            prevent_thread_lock=True, show_error=True, quiet=quiet, footer_links=[],
            run_history=False, ssr_mode=False, pwa=False, mcp_server=False,
            enable_monitoring=False, state_session_capacity=MOST_SESSIONS, theme=theme(),
            head="".join(scripts), css=colour_css() + static.joinpath("demo.css").read_text(),
            app_kwargs={"middleware": middleware(page, site, host_names(host, share, names))},
        )  # fmt: skip
        yield page, site


def middleware(page: gr.Blocks, site: Site, names: list[str]) -> list[Middleware]:
    """What a request passes through before gradio handles it, in this order."""

    def pending() -> list[str]:
        return [event.session_hash for event in page._queue.event_ids_to_events.values()]

    return [
        Middleware(KnownHost, allowed_hosts=names, www_redirect=False),
        Middleware(RequestBodyLimitMiddleware, max_body_size=MOST_BODY),
        Middleware(Guard),
        Middleware(Door, visitors=site.visitors, pending=pending),
    ]


def colour_css() -> str:
    """The colours of `ajour.pipelines.drawing`: as variables, and as backgrounds of classes."""
    colours = {f"k-{kind}": colour for kind, colour in KIND_COLOURS.items()}
    colours |= {f"l-{index}": colour for index, colour in enumerate(LEVEL_COLOURS)}
    variables = "".join(f"--{name}: {colour}; " for name, colour in colours.items())
    classes = "".join(f".{name} {{ background: var(--{name}); }}\n" for name in colours)
    return f".gradio-container {{ {variables}}}\n{classes}"


def theme() -> gr.themes.Base:
    """System fonts, so that nothing is fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "Segoe UI", "DejaVu Sans", "sans-serif"],
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
        radius_size=gr.themes.sizes.radius_md,
    )
