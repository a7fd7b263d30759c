"""KServe's Python SDK, its model calling OpenVINO: `kserve_sdk.py PORT NAME MODEL.xml`."""

from __future__ import annotations

import logging
import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from pool import Pool


class OpenVinoModel(Model):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._pool = Pool(path)
        self.ready = True

    def load(self) -> bool:
        return True

    def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        raw = payload.use_binary_outputs
        with self._pool.infer(payload.inputs[0].as_numpy()) as result:
            output = InferOutput("output", list(result.shape), "FP32")
            output.set_data_from_numpy(result, binary_data=raw)
        return InferResponse(payload.id or "1", self.name, [output], use_binary_outputs=raw)


if __name__ == "__main__":
    port, name, model = sys.argv[1:4]  # the SDK reads the flags after them
    # Its lines about each request are off, as are everybody's.
    server = ModelServer(http_port=0, grpc_port=int(port), enable_grpc=True, workers=1,
                         enable_latency_logging=False)  # fmt: skip
    for logger in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    server.start([OpenVinoModel(name, model)])
