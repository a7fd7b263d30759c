"""Any sequence of what clients do on streams, while models are replaced under them.

Answers come in order, one for each message; when all have gone, nothing is held.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from conftest import wait_until
from graphs.graph_site import Talk, add_graph, ends, inference, session
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
)
from pipelines.pipes import entry, model
from site_of_models import ONES, Site, plus
from wire import infer_request

from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.repository.versions import State, VersionEntry

EXAMPLES = max(int(os.environ.get("KFS_HYPOTHESIS_EXAMPLES", "300")) // 30, 5)
KINDS = ["model", "pipeline", "graph"]
MALFORMED = b"\x0a\x7fab"


@dataclass
class Stream:
    """One stream of a client: what it has sent that is not answered yet, and what to expect."""

    kind: str
    talk: Talk
    added: int
    #: The number in each message; None for one that cannot be answered.
    sent: list[int | None] = field(default_factory=list)

    def expected(self, is_error: bool) -> int | None:
        """The message that the next answer is to; errors of a graph overtake its values."""
        place = 0
        if self.kind == "graph":
            place = next(n for n, number in enumerate(self.sent) if (number is None) == is_error)
        return self.sent.pop(place)


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
        #: Whatever has been served.
        self.entries: set[VersionEntry] = set()

    @initialize()
    def start(self) -> None:
        self.site.add("model", self.version)
        self.site.add("steady", 7)
        node = model("node", "steady", b="request.b")
        self.site.pipelines = [entry(["b"], [node], name="pipeline", a="node.a")]
        text = inference("steady", {"B": "b"}, {"A": "a"}, B="b", A="a")
        add_graph(self.site, "graph", ends(["b"], ["a"]) + session("steady") + text)
        self.stub = self.site.start()
        self.look()

    def teardown(self) -> None:
        for stream in self.open:
            stream.talk.cancel()
        wait_until(self.is_free)
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
        stream.talk.say(infer_request(stream.kind, raw=(self.n_messages * ONES).tobytes()))
        stream.sent.append(self.n_messages)

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

    def check(self, stream: Stream, answer: pb.ModelStreamInferResponse) -> None:
        number = stream.expected(bool(answer.error_message))
        assert bool(answer.error_message) == (number is None)
        if number is not None:
            (raw,) = answer.infer_response.raw_output_contents
            assert np.array_equal(np.frombuffer(raw, np.float32), number * ONES[0] + stream.added)

    # What an operator does

    @rule()
    def bring_a_new_version(self) -> None:
        self.version += 1
        plus(self.site.root / "model" / str(self.version), self.version)
        self.look()

    @rule(nireq=st.integers(1, 3))
    def change_what_is_used(self, nireq: int) -> None:
        self.site.models["steady"]["nireq"] = nireq
        self.site.write()
        self.look()

    def look(self) -> None:
        assert self.site.server
        self.site.poll()
        for served in self.site.server.catalog.snapshot.values():
            self.entries.update(served.versions.values())

    def is_free(self) -> bool:
        """Whether nothing is in use, and what was replaced is unloaded."""
        return not any(entry.leases for entry in self.entries) and all(
            entry.is_available or entry.state is State.END for entry in self.entries
        )


Streams.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStreams = Streams.TestCase
