"""MLServer, its runtime calling OpenVINO: `mlserver_runtime.py PORT NAME MODEL.xml`."""

from __future__ import annotations

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from pool import Pool


class OpenVinoRuntime(MLModel):
    async def load(self) -> bool:
        self._pool = Pool(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        with self._pool.infer(NumpyCodec.decode_input(payload.inputs[0])) as result:
            output = NumpyCodec.encode_output("output", result)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(port: int, name: str, path: str) -> None:
    settings = Settings(
        debug=False, host="127.0.0.1", grpc_port=port, http_port=0, parallel_workers=0,
        metrics_endpoint=None, grpc_max_message_length=1 << 30,
    )  # fmt: skip
    model = ModelSettings(
        name=name, implementation=OpenVinoRuntime, parameters=ModelParameters(uri=path)
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), *sys.argv[2:]))
