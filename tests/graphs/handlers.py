"""Handlers for Python nodes that several tests use."""

INCREMENT = """
    import numpy as np
    from pyovms import Tensor

    class OvmsPythonModel:
        def initialize(self, kwargs):
            self.output = kwargs["output_names"][0]

        def execute(self, inputs):
            data = np.array(inputs[0])
            if data.dtype != np.float32:
                raise TypeError("only FP32")
            return [Tensor(self.output, data + 1)]
"""

NOTES = """
    import json
    from pathlib import Path

    from beside import double
    from pyovms import Tensor

    class OvmsPythonModel:
        def initialize(self, kwargs):
            self.folder = Path(kwargs["base_path"])
            (self.folder / "kwargs.json").write_text(json.dumps(kwargs))

        def execute(self, inputs):
            names = "".join(tensor.name for tensor in inputs)
            return [Tensor("out", double(names).encode())]

        def finalize(self):
            (self.folder / "finalized").touch()
            raise RuntimeError("this is only logged")
"""

#: A module that NOTES imports. A process has it once, whatever folder it was first found in.
BESIDE = """
    def double(text):
        return text + text
"""
