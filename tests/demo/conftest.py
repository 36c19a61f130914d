"""A site around a tiny random pipeline, and its server."""

import shutil
import socket
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

pytest.importorskip("gradio", reason="the page needs gradio: pip install '.[demo]'")

from ajour.demo.app import serving
from ajour.demo.device import Device
from ajour.demo.model import Model, find_model
from ajour.demo.request import Request, Size
from ajour.demo.run import Runner
from ajour.demo.server import Site
from ajour.demo.store import Store
from tests.pipelines.conftest import LATE, _parts, make_pipe, pipe

__all__ = ["_parts", "make_pipe", "pipe"]

SIZE = Size(9, 128, 112)
REQUEST = Request("a red circle", 0, 4, SIZE, 1.0)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass(frozen=True)
class TinyModel(Model):
    """The bundled model's place, taken by a pipeline that is made, not loaded."""

    make: object = None

    def load(self):
        return self.make()


def tiny_model(make, **changes):
    usual = {
        "sizes": {"Tiny": SIZE, "Smaller": Size(5, 96, 96)}, "size": None, "steps": 4,
        "guidance": 1.0, "prompts": ("a red circle", "a blue star"), "plan": LATE, "make": make,
    }  # fmt: skip
    return TinyModel(**usual | changes)


@pytest.fixture
def site(pipe, tmp_path):
    model = tiny_model(lambda: pipe)
    device = Device(model.load)
    assert device.ready.wait(30)
    store = Store(tmp_path / "served")
    yield Site(model, device, store, Runner(model, store), None)
    device.close()


def finish(job):
    """Wait for a job; its progress on the way."""
    return [state.progress for state in job.watch(every=0.0)]


@pytest.fixture(scope="session")
def chromium():
    """A browser that is started once."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        browser.new_page().close()  # what a browser does once is not the page's time
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(_parts):
    """A running server without a stored example: its address and its site."""
    fresh = make_pipe.__wrapped__(_parts)()
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "example", lambda _: None)  # it is of another model's shape
            opened = serving(tiny_model(lambda: fresh), port=free_port())
            page, site = stack.enter_context(opened)
        assert site.device.ready.wait(30)
        yield page.local_url, site


@pytest.fixture
def bundled():
    """A server of the bundled model that has just come up: its address and its site."""
    with serving(find_model(), port=free_port()) as (page, site):
        yield page.local_url, site


def free_port():
    """A free port: the server's own search for a port races with other workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
