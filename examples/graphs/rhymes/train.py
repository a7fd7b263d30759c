"""Train the generator: which letters follow which, in old nursery rhymes.

python examples/graphs/rhymes/train.py

A model of a few kilobytes: for every sequence of up to four letters in rhymes.txt, the letters
that come after it, each as often as it does. The rhymes are in the public domain.
"""

import json
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
ORDER = 4


def train(text: str) -> dict[str, str]:
    """What follows each sequence, which may be empty."""
    followers: defaultdict[str, str] = defaultdict(str)
    for at, letter in enumerate(text):
        for length in range(min(at, ORDER) + 1):
            followers[text[at - length : at]] += letter
    return dict(followers)


def write_model(text: str) -> str:
    return json.dumps(train(text), indent=0, sort_keys=True) + "\n"


if __name__ == "__main__":
    text = (HERE / "rhymes.txt").read_text(encoding="utf-8")
    (HERE / "model.json").write_text(write_model(text), encoding="utf-8")
