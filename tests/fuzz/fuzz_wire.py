#!/usr/bin/env python3
"""A coverage-guided fuzz target for the wire reader: any bytes, and protobuf as the oracle.

Needs the modules built with KFS_FUZZ, and the sanitizer of atheris in LD_PRELOAD; see
docs/reliability.md. Arguments are libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris
from oracle import check_agreement

atheris.Setup(sys.argv, check_agreement)
atheris.Fuzz()
