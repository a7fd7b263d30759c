"""Any sequence of what clients do on streams, while models are replaced under them.

Answers come in order, one for each message; when all have gone, nothing is held.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from conftest import wait_until
from graphs.graph_site import Talk, add_graph, ends, inference, session
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
)
from pipelines.pipes import entry, model
from site_of_models import ONES, Site, plus
from wire import infer_request

import numpy as np

EXAMPLES = max(int(os.environ.get("KFS_HYPOTHESIS_EXAMPLES", "300")) // 15, 5)
KINDS = ["model", "pipeline", "graph"]
MALFORMED = b"\x0a\x7fab"


@dataclass
class Stream:
    """One stream of a client: what it has sent that is not answered yet, and what to expect."""

    kind: str
    talk: Talk
    added: int
    #: Ids of the messages; None for one that cannot be answered.
    sent: deque[str | None] = field(default_factory=deque)


class Streams(RuleBasedStateMachine):
    """A server with a model, a pipeline and a graph, and clients that stream on them."""

    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.site = Site(Path(self.folder.name))
        self.version = 1
        self.n_messages = 0
        self.open: list[Stream] = []

    @initialize()
    def start(self) -> None:
        self.site.add("model", self.version)
        self.site.add("steady", 7)
        node = model("node", "steady", b="request.b")
        self.site.pipelines = [entry(["b"], [node], name="pipeline", a="node.a")]
        text = ends(["b"], ["a"]) + session("steady")
        add_graph(self.site, "graph", text + inference("steady", {"B": "b"}, {"A": "a"}, B="b", A="a"))
        self.stub = self.site.start()

    def teardown(self) -> None:
        for stream in self.open:
            stream.talk.cancel()
        if self.site.server:
            wait_until(lambda: not self.leases())
            self.site.stop()
        self.folder.cleanup()

    # What clients do

    @rule(target=streams, kind=st.sampled_from(KINDS))
    def begin(self, kind: str) -> Stream:
        stream = Stream(kind, Talk(self.stub), self.version if kind == "model" else 7)
        self.open.append(stream)
        self.say(stream)
        self.hear(stream)  # it has begun, with what is served now
        return stream

    @rule(stream=streams)
    def say(self, stream: Stream) -> None:
        self.n_messages += 1
        id = str(self.n_messages)
        stream.talk.say(infer_request(stream.kind, raw=ONES.tobytes(), id=id))
        stream.sent.append(id)

    @rule(stream=streams, name=st.sampled_from(["nobody", "steady"]))
    def say_something_wrong(self, stream: Stream, name: str) -> None:
        stream.talk.say(infer_request(name, raw=ONES.tobytes()))
        stream.sent.append(None)

    @rule(stream=streams)
    def say_something_malformed(self, stream: Stream) -> None:
        stream.talk.say(MALFORMED)  # type: ignore[arg-type]
        stream.sent.append(None)

    @rule(stream=streams)
    def hear(self, stream: Stream) -> None:
        if stream.sent:
            self.check(stream, stream.talk.hear())

    @rule(stream=consumes(streams))
    def half_close(self, stream: Stream) -> None:
        self.open.remove(stream)
        for answer in stream.talk.rest():
            self.check(stream, answer)
        assert not stream.sent

    @rule(stream=consumes(streams))
    def leave(self, stream: Stream) -> None:
        self.open.remove(stream)
        stream.talk.cancel()

    def check(self, stream, answer) -> None:
        id = stream.sent.popleft()
        if id is None:
            assert answer.error_message
            return
        assert not answer.error_message
        assert answer.infer_response.id == id
        (raw,) = answer.infer_response.raw_output_contents
        assert np.array_equal(np.frombuffer(raw, np.float32), ONES[0] + stream.added)

    # What an operator does

    @rule()
    def bring_a_new_version(self) -> None:
        self.version += 1
        plus(self.site.root / "model" / str(self.version), self.version)
        self.site.poll()

    @rule(nireq=st.integers(1, 3))
    def change_what_is_used(self, nireq: int) -> None:
        self.site.models["steady"]["nireq"] = nireq
        self.site.write()
        self.site.poll()

    def leases(self):
        ...
