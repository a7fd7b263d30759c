"""Have several requests under way at a time.

Start a server with `kfs-fast serve`, then: python infer_async.py [host:port]
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton

from kfs.digits import images

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
answers: queue.SimpleQueue = queue.SimpleQueue()
with triton.InferenceServerClient(url) as client:
    for file in images():
        tensor = triton.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([file.path.read_bytes()], dtype=np.object_))
        client.async_infer(
            "digits", [tensor], lambda result, error: answers.put((result, error)),
            request_id=file.path.name,
        )  # fmt: skip
    for _ in images():
        result, error = answers.get(timeout=10)
        if error:
            raise error
        print(f"{result.get_response().id}: {result.as_numpy('probabilities').argmax()}")
