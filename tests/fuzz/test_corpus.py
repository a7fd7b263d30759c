"""What fuzzing has found worth keeping, and what it found wrong, once each."""

from __future__ import annotations

from pathlib import Path

from oracle import check_agreement

CORPUS = Path(__file__).parent / "corpus"


def test_the_reader_agrees_with_protobuf_on_the_corpus() -> None:
    wires = sorted(CORPUS.iterdir())
    assert len(wires) > 100
    for wire in wires:
        try:
            check_agreement(wire.read_bytes())
        except AssertionError as error:
            raise AssertionError(f"on {wire.name}") from error
