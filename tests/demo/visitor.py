"""A visitor without a browser: speaks to a running server as the page's scripts do."""

import json
import secrets
import threading
from functools import lru_cache

import httpx

FILE = {"path": "http://example.com/plan.json", "meta": {"_type": "gradio.FileData"}}
"""A file by address, as gradio's components take it."""


@lru_cache
def config_of(url):
    """What the page consists of."""
    return httpx.get(f"{url}config").json()


class Visitor:
    """One open page.

    Args:
        url: address of the server.
        open: keep the page's heartbeat open.
    """

    def __init__(self, url, open=True):
        self.url, self.session = url, secrets.token_hex(6)
        self.client = httpx.Client(base_url=url, timeout=20)
        self._close = threading.Event()
        self._opened = threading.Event()
        self.config = config_of(url)
        self.status = None
        if open:
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
            assert self._opened.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._close.set()
        self.client.close()

    def _beat(self):
        with httpx.stream("GET", f"{self.url}gradio_api/heartbeat/{self.session}") as answer:
            self.status = answer.status_code
            self._opened.set()
            self._close.wait(60)

    def events(self):
        """The events that the server runs: (index, number of inputs)."""
        return [
            (event["id"], len(event["inputs"]))
            for event in self.config["dependencies"]
            if event["backend_fn"]
        ]

    def event(self, element, name):
        """The index of an event and its number of inputs, by the element's id and the name."""
        ids = {c["props"].get("elem_id"): c["id"] for c in self.config["components"]}
        return next(
            (event["id"], len(event["inputs"]))
            for event in self.config["dependencies"]
            if [ids[element], name] in [list(target) for target in event["targets"]]
            and event["backend_fn"]
        )

    def join(self, index, data, event_data=None):
        """Join the queue with an event."""
        body = {
            "fn_index": index, "session_hash": self.session, "data": data,
            "event_data": event_data, "trigger_id": None,
        }  # fmt: skip
        return self.client.post("gradio_api/queue/join", json=body)

    def messages(self):
        """Listen until every event of this visitor has ended."""
        address = f"gradio_api/queue/data?session_hash={self.session}"
        with self.client.stream("GET", address) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    if message["msg"] == "close_stream":
                        return
                    yield message

    def run(self, index, data, event_data=None):
        """Join, listen to the end, and give the text of all that the server sent."""
        answer = self.join(index, data, event_data)
        if answer.status_code != 200:
            return answer.text
        return "\n".join(json.dumps(message) for message in self.messages())

    def upload(self, name, text, element="upload-plan", colour="kind"):
        """Upload a plan in the way of the page, where the map has a colour."""
        index, _ = self.event(element, "upload")
        return self.run(index, [None, colour], {"name": name, "text": text})
