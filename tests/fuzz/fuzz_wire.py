#!/usr/bin/env python3
"""A coverage-guided fuzz target for the wire reader: any bytes, and protobuf as the oracle.

Needs the modules built with KFS_FUZZ, and the sanitizer of atheris in LD_PRELOAD: `.ci/fuzz` does
both. Arguments are libFuzzer's.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import atheris
from oracle import check_agreement


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change the message, or a message or value within it, and then the lengths around that.

    Changes that know nothing of lengths seldom get any deeper than the first one.
    """
    return mutate_within(data, max_size, random.Random(seed))[:max_size]


def mutate_within(data: bytes, max_size: int, dice: random.Random) -> bytes:
    spans = list(delimited(data))
    if not spans or dice.random() < 0.3:
        return bytes(atheris.Mutate(data, max(max_size, 1)))
    length_at, begin, end = dice.choice(spans)
    inner = mutate_within(data[begin:end], max_size - len(data) + end - begin, dice)
    return data[:length_at] + varint(len(inner)) + inner + data[end:]


def delimited(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Where fields that have a length have it, begin and end, as far as the message can be read."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 2:
            length_at = at
            size, at = read_varint(data, at)
            if at + size <= len(data):
                yield length_at, at, at + size
            at += size
        elif tag & 7 == 0:
            _, at = read_varint(data, at)
        else:
            at += {1: 8, 5: 4}.get(tag & 7, 0)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


atheris.Setup(sys.argv, check_agreement, custom_mutator=mutate)
atheris.Fuzz()
