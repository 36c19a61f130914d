"""However the server ends, its folder of files is deleted."""

import os
import signal
import tempfile
import threading

import gradio
import pytest

from ajour.demo.app import serving
from ajour.demo.model import Model
from ajour.search.cli import main
from tests.demo.conftest import free_port, tiny_model

pytestmark = pytest.mark.xdist_group("demo-server")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders of running servers."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: list(tmp_path.glob("ajour-demo-*"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_command(pipe, folders, monkeypatch, request, number, code):
    def block(page):
        assert len(folders()) == 1
        threading.Timer(0.2, os.kill, [os.getpid(), number]).start()
        real(page)

    real = gradio.Blocks.block_thread
    monkeypatch.setattr(gradio.Blocks, "block_thread", block)
    monkeypatch.setattr(Model, "load", lambda _: pipe)
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    # A shell's background job starts with Ctrl-C ignored, and Python leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main(["demo", "--port", str(free_port())]))
    assert stop.value.code == code
    assert folders() == []
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == handlers


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_files_go_when_the_block_ends(pipe, folders, error):
    def serve():
        with serving(tiny_model(lambda: pipe), port=free_port()):
            assert len(folders()) == 1
            if error is not None:
                raise error

    if error is None:
        serve()
    else:
        with pytest.raises(error):
            serve()
    assert folders() == []
