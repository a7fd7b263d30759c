"""Send requests over one stream; the answers come in order.

Start a server with `kfs-fast serve`, then: python stream.py [host:port]
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton

from kfs.digits import images

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
answers: queue.SimpleQueue = queue.SimpleQueue()
with triton.InferenceServerClient(url) as client:
    client.start_stream(lambda result, error: answers.put((result, error)))
    for file in images():
        tensor = triton.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([file.path.read_bytes()], dtype=np.object_))
        client.async_stream_infer("digits", [tensor], request_id=file.path.name)
    for _ in images():
        result, error = answers.get(timeout=10)
        if error:
            raise error
        print(f"{result.get_response().id}: {result.as_numpy('probabilities').argmax()}")
    client.stop_stream()
