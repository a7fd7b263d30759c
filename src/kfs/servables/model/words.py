"""What OpenVINO says when it refuses something."""

from __future__ import annotations


def words_of(error: Exception) -> str:
    """Its message in one line, without the places in its sources that it begins with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return " ".join(told or lines) or type(error).__name__
