"""What a stranger can and cannot make the server do, tried over HTTP on a running server."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.demo.visitor import FILE, Visitor
from tests.pipelines.conftest import LATE

pytestmark = pytest.mark.xdist_group("demo-server")

PLAN = json.dumps(LATE.to_dict())


@pytest.fixture
def visitor(server):
    with Visitor(server[0]) as visitor:
        yield visitor


@pytest.fixture
def fetched(monkeypatch):
    """What gradio tries to download."""
    addresses = []

    async def download(url, cache_dir):
        addresses.append(url)
        raise OSError("no network here")

    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", download)
    return addresses


def files(site):
    return {path for path in site.store.root.rglob("*") if path.is_file()}


def test_no_event_makes_the_server_fetch_an_address(visitor, fetched):
    for index, inputs in visitor.events():
        visitor.run(index, [FILE] * inputs)
        visitor.client.post(
            "gradio_api/run/predict",
            json={"fn_index": index, "session_hash": visitor.session, "data": [FILE] * inputs},
        )
        assert fetched == []


def test_an_event_cannot_delete_a_served_file(visitor, server):
    served = server[1].store.new() / "report.json"
    served.write_text("{}")
    file = FILE | {"path": str(served), "orig_name": "report.json"}
    for element in ("upload-plan", "upload-generate"):
        index, inputs = visitor.event(element, "upload")
        visitor.run(index, [file] + [None] * (inputs - 1), file)
    assert served.exists()


def test_files_are_not_taken(server):
    before = files(server[1])
    for name in ("plan.json", "page.html", "tool.exe"):
        httpx.post(f"{server[0]}gradio_api/upload", files={"files": (name, b"<script>")})
    assert files(server[1]) == before


def test_an_uploaded_plan_leaves_nothing_on_the_disk(visitor, server):
    before = files(server[1])
    assert "mine.json is a valid plan" in visitor.upload("mine.json", PLAN)
    assert files(server[1]) == before


def test_the_name_of_an_upload_stays_text(visitor):
    answer = visitor.upload("<img src=x onerror=alert(1)>.json", PLAN)
    assert "&lt;img src=x onerror=alert(1)&gt;.json is a valid plan" in answer
    assert "<img src=x" not in answer


@pytest.mark.parametrize("event", [None, {}, {"name": 1, "text": 2}, [1], "name text"])
def test_uploads_without_a_text_are_answered(visitor, event):
    index, inputs = visitor.event("upload-plan", "upload")
    assert "has at most 1 MiB" in visitor.run(index, [None] * inputs, event)


def test_equal_uploads_of_two_visitors_do_not_meet(server):
    with Visitor(server[0]) as first, Visitor(server[0]) as second, ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda visitor: visitor.upload("same.json", PLAN), (first, second))
        assert all("same.json is a valid plan" in answer for answer in answers)
