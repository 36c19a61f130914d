"""What of the server strangers reach, and that nobody can take all of its places."""

import collections
import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from ajour.demo.device import STOPPED
from ajour.demo.door import MOST_EVENTS
from ajour.demo.guard import KnownHost, host_names
from ajour.demo.visitors import TooMany, Visitors
from tests.demo.visitor import Visitor

pytestmark = pytest.mark.xdist_group("demo-server")

FORM = ["a red circle", 0, 4, 5, 96, 96, 1.0, "shipped", "balanced", 0.3, None]
"""The Generate tab, filled in."""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "monitoring"), ("GET", "monitoring/summary"), ("GET", "openapi.json"),
        ("GET", "docs"), ("GET", "redoc"), ("GET", "gradio_api/openapi.json"),
        ("GET", "gradio_api/queue/status"), ("GET", "gradio_api/deep_link?session_hash=a"),
        ("GET", "gradio_api/dev/reload"), ("GET", "gradio_api/token"), ("GET", "robots.txt"),
        ("GET", "gradio_api/call/refresh/1"), ("GET", "gradio_api/upload_progress?upload_id=1"),
        ("POST", "gradio_api/run/predict"), ("POST", "gradio_api/api/predict"),
        ("POST", "gradio_api/call/refresh"), ("POST", "gradio_api/call/v2/refresh"),
        ("POST", "gradio_api/upload"), ("POST", "gradio_api/cancel"), ("POST", "gradio_api/reset"),
        ("POST", "gradio_api/component_server"), ("POST", "gradio_api/process_recording"),
        ("POST", "gradio_api/vibe-edit"), ("POST", "gradio_api/stream/1"), ("POST", "login"),
    ],
)  # fmt: skip
def test_only_what_the_page_needs_is_there(server, method, path):
    answer = httpx.request(method, f"{server[0]}{path}", json={} if method == "POST" else None)
    assert answer.status_code == 404
    assert answer.text == "this server has no such page"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", ""])
def test_other_names_of_this_machine_are_refused(server, host):
    answer = httpx.get(server[0], headers={"Host": host})
    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:7860"])
def test_addresses_and_localhost_are_allowed(server, host):
    assert httpx.get(f"{server[0]}theme.css", headers={"Host": host}).status_code == 200


def test_names_of_the_machine_are_allowed():
    names = host_names("page.local", share=True, names=["demo.example.org"])
    app = KnownHost(PlainTextResponse("page"), names, www_redirect=False)
    codes = {}
    for host in ("page.local", "demo.example.org", "a1b2.gradio.live", socket.gethostname(),
                 "example.org", "gradio.live.example.org"):  # fmt: skip
        codes[host] = TestClient(app, base_url=f"http://{host}").get("/").status_code
    assert list(codes.values()) == [200, 200, 200, 200, 400, 400]


def test_no_site_may_frame_the_page(server):
    for path in ("", "config", "nothing-here"):
        policy = httpx.get(f"{server[0]}{path}").headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("chunked", [False, True])
def test_messages_are_limited_in_size(server, chunked):
    body = b" " * 2**23
    content = iter([body]) if chunked else body
    headers = {"Content-Type": "application/json"}
    address = f"{server[0]}gradio_api/queue/join"
    assert httpx.post(address, content=content, headers=headers).status_code == 413


def test_clients_without_a_page_start_nothing(server, monkeypatch):
    url, site = server
    monkeypatch.setattr(site.visitors, "patience", 0.05)
    strangers = [Visitor(url, open=False) for _ in range(9)]
    index, _ = strangers[0].event("generate", "click")
    answers = [stranger.join(index, FORM) for stranger in strangers]
    assert {answer.status_code for answer in answers} == {403}
    assert "no page is open" in answers[0].text
    assert site.device.jobs == ()


def test_pages_that_never_listen_hold_no_place(server, monkeypatch):
    url, site = server
    monkeypatch.setattr(site.visitors, "patience", 0.5)
    with contextlib.ExitStack() as stack:
        deaf = [stack.enter_context(Visitor(url)) for _ in range(5)]
        index, _ = deaf[0].event("generate", "click")
        for stranger in deaf:
            assert stranger.join(index, FORM).status_code == 200
        visitor = stack.enter_context(Visitor(url))
        assert "Your run" in visitor.run(index, FORM)
    assert site.device.jobs == ()


def load_event(visitor):
    """The event that waits for the model."""
    events = visitor.config["dependencies"]
    return next(event["id"] for event in events if event["targets"][0][1] == "load")


def test_a_visitor_has_few_events_at_a_time(server, monkeypatch):
    url, site = server
    gate = threading.Event()
    monkeypatch.setattr(site.device, "ready", gate)  # the page's first event waits for the model
    with Visitor(url) as visitor, Visitor(url) as other:
        index = load_event(visitor)
        try:
            codes = [visitor.join(index, []).status_code for _ in range(10)]
            assert codes == [200] * 8 + [429] * 2
            codes = [other.join(index, []).status_code for _ in range(6)]
            assert codes == [200] * 4 + [429] * 2  # both come from one address
        finally:
            gate.set()
        list(visitor.messages())
        list(other.messages())
        assert visitor.join(index, []).status_code == 200
        list(visitor.messages())


def test_events_that_come_at_once_are_counted_too(server, monkeypatch):
    url, site = server
    gate = threading.Event()
    monkeypatch.setattr(site.device, "ready", gate)
    with Visitor(url) as visitor, ThreadPoolExecutor(30) as pool:
        index = load_event(visitor)
        try:
            answers = list(pool.map(lambda _: visitor.join(index, []), range(60)))
        finally:
            gate.set()
        codes = collections.Counter(answer.status_code for answer in answers)
        assert set(codes) == {200, 429}
        assert codes[200] <= MOST_EVENTS
        list(visitor.messages())


def test_a_message_that_is_never_finished_leaves_no_trace(server, caplog):
    place = urlsplit(server[0])
    with socket.create_connection((place.hostname, place.port)) as connection:
        head = f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: {place.netloc}\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert httpx.get(f"{server[0]}theme.css").status_code == 200
    assert "ClientDisconnect" not in caplog.text


def test_a_page_too_many_is_refused(server, monkeypatch):
    url, site = server
    monkeypatch.setattr(site.visitors, "_each", 1)
    with Visitor(url), Visitor(url) as second:
        assert second.status == 429


def test_a_page_that_is_closed_stops_its_run(server):
    url, site = server
    with Visitor(url) as visitor:
        index, _ = visitor.event("generate", "click")
        assert visitor.join(index, [*FORM[:2], 100, *FORM[3:]]).status_code == 200
        messages = visitor.messages()
        while not site.device.jobs:
            next(messages)
        job = site.device.jobs[0]
    collections.deque(job.watch(), maxlen=0)
    assert job.state == STOPPED


def test_pages_are_counted_by_address_and_in_all():
    visitors = Visitors(most=3, each=2)
    with contextlib.ExitStack() as stack:
        for session, address in (("a", "1"), ("b", "1")):
            stack.enter_context(visitors.open(session, address))
        with pytest.raises(TooMany, match="2 pages are open from this address"):
            stack.enter_context(visitors.open("c", "1"))
        with visitors.open("c", "2"):
            assert visitors.is_open("c")
            with pytest.raises(TooMany, match="3 pages are open"):
                stack.enter_context(visitors.open("d", "3"))
        assert not visitors.is_open("c")
    with visitors.open("d", "3"):
        assert visitors.address("d") == "3"
