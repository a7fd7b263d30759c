"""Ask a server for everything that the KServe SDK's gRPC client can ask; the answers as JSON.

Usage: python kserve_client.py HOST:PORT, with an interpreter that has `kserve` installed and
nothing of ours. The server has the models `dummy` (b -> a = b + 1) and `strings` (as they are).
"""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

NUMBERS = np.arange(10, dtype=np.float32).reshape(1, 10)
STRINGS = np.array([b"ala", b"", b"kota"], dtype=np.object_)


async def infer(
    client: InferenceGRPCClient,
    model: str,
    name: str,
    datatype: str,
    values: np.ndarray,
    binary: bool,
) -> dict[str, object]:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    answer = await client.infer(InferRequest(model, [tensor], request_id="7"))
    (output,) = answer.outputs
    found = output.as_numpy()
    return {
        "model": answer.model_name,
        "version": answer.model_version,
        "id": answer.id,
        "output": output.name,
        "datatype": output.datatype,
        "shape": list(found.shape),
        "values": [x.decode() if isinstance(x, bytes) else x for x in found.ravel().tolist()],
    }


async def main(url: str) -> None:
    client = InferenceGRPCClient(url)
    answers: dict[str, object] = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("dummy"),
    }
    for how, binary in (("binary", True), ("contents", False)):
        answers[f"numbers_{how}"] = await infer(client, "dummy", "b", "FP32", NUMBERS, binary)
        answers[f"strings_{how}"] = await infer(
            client, "strings", "input", "BYTES", STRINGS, binary
        )
    try:
        await infer(client, "dummy", "b", "FP32", NUMBERS[:, :9], True)
    except Exception as error:
        answers["refused"] = str(error)
    await client.close()
    print(json.dumps(answers))


asyncio.run(main(sys.argv[1]))
