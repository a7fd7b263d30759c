"""Write on from a prompt, letter by letter; the same prompt is continued in the same way."""

import json
import random
from pathlib import Path

import numpy as np
from pyovms import Tensor


class OvmsPythonModel:
    def initialize(self, kwargs):
        model = Path(kwargs["base_path"]) / "model.json"
        self.followers = json.loads(model.read_text(encoding="utf-8"))
        self.order = max(map(len, self.followers))

    def execute(self, inputs):
        # Inputs come in the order of their tags: LENGTH, PROMPT.
        length = int(np.array(inputs[0])[0])
        text = bytes(inputs[1])[4:].decode()
        dice = random.Random(text)
        for _ in range(length):
            letter = dice.choice(self.after(text))
            text = (text + letter)[-self.order :]
            data = letter.encode()
            element = len(data).to_bytes(4, "little") + data
            yield [Tensor("text", element, shape=[1], datatype="BYTES")]

    def after(self, text):
        """The letters after the longest end of the text that was ever seen."""
        for start in range(max(0, len(text) - self.order), len(text)):
            if text[start:] in self.followers:
                return self.followers[text[start:]]
        return self.followers[""]
