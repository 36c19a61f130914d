"""The server over HTTP, without a browser: early, closed, and asking nobody else."""

import io
import os
import subprocess
import sys
import threading

import httpx
import pytest

from ajour.demo.app import serving
from ajour.demo.guard import POLICY
from ajour.plan import MAX_BYTES
from ajour.search.cli import main
from tests.demo.conftest import free_port, tiny_model

pytestmark = pytest.mark.xdist_group("demo-server")


def test_the_page_opens_while_the_model_loads(pipe):
    gate = threading.Event()

    def load():
        gate.wait(60)
        return pipe

    with serving(tiny_model(load), port=free_port()) as (page, site):
        try:
            answer = httpx.get(page.local_url)
            assert not site.device.ready.is_set()
        finally:
            gate.set()
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert "ajour-compare" in answer.text  # the scripts are part of it
    assert len(answer.content) < 2**20


def test_only_files_of_the_store_are_served(server, tmp_path):
    url, site = server
    own = site.store.new() / "report.json"
    own.write_text("{}")
    assert httpx.get(f"{url}gradio_api/file={own}").status_code == 200
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (secret, "/etc/passwd", f"{own}/../../../../../../etc/passwd", "pyproject.toml",
                 __file__, ".gradio/x", site.store.root):  # fmt: skip
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404), path
    link = own.parent / "link.txt"
    link.symlink_to(secret)
    if httpx.get(f"{url}gradio_api/file={link}").status_code == 200:
        pytest.fail("a link led out of the folder")


@pytest.mark.parametrize("prefix", ["gradio_api/file=", "gradio_api/proxy="])
@pytest.mark.parametrize("target", ["http://example.com/x", "HTTPS%3A//example.com/x"])
def test_the_server_fetches_nothing_for_anybody(server, prefix, target):
    answer = httpx.get(f"{server[0]}{prefix}{target}")
    assert answer.status_code == 403
    assert "fetches nothing" in answer.text


def test_uploads_are_limited_in_size(server):
    big = io.BytesIO(b" " * (MAX_BYTES + 2**16))
    answer = httpx.post(f"{server[0]}gradio_api/upload", files={"files": ("plan.json", big)})
    assert answer.status_code == 413


def test_no_endpoint_is_named(server):
    named = httpx.get(f"{server[0]}gradio_api/info").json()
    assert named["named_endpoints"] == {}
    assert named["unnamed_endpoints"] == {}


def test_every_event_is_private_and_runs_wait_in_the_devices_line(server):
    config = httpx.get(f"{server[0]}config").json()
    assert config["analytics_enabled"] is False
    assert all(event["api_visibility"] == "private" for event in config["dependencies"])
    assert config["footer_links"] == []


def test_the_command_is_offered_without_loading_gradio(capsys):
    code = (
        "import sys; from ajour.search.cli import main\n"
        "try: main(['demo', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'gradio', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--share" in out.stdout


def test_without_gradio_the_command_explains_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("ajour.demo.commands.find_spec", lambda _: None)
    assert main(["demo"]) == 1
    assert "pip install '.[demo]'" in capsys.readouterr().err


def test_a_missing_model(tmp_path, capsys):
    before = dict(os.environ)
    assert main(["demo", "--model", str(tmp_path / "none")]) == 1
    assert "no model at" in capsys.readouterr().err
    assert dict(os.environ) == before  # servers of this process go on


def test_a_missing_plan(tmp_path, capsys):
    assert main(["demo", "--plan", str(tmp_path / "none.json")]) == 1
    assert "cannot read plan" in capsys.readouterr().err
