"""Numbers go in one by one, and the mean of all so far comes back: the stream remembers.

Start a server as docs/graphs.md tells, then: python running_mean.py [host:port]
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
answers: queue.SimpleQueue = queue.SimpleQueue()
with triton.InferenceServerClient(url) as client:
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in (4.0, 8.0, 3.0, 5.0):
        tensor = triton.InferInput("values", [1], "FP64")
        tensor.set_data_from_numpy(np.array([number]))
        client.async_stream_infer("running_mean", [tensor])
        result, error = answers.get(timeout=10)
        if error:
            raise error
        print(f"{number:g}: the mean is {result.as_numpy('mean')[0]:g}")
    client.stop_stream()
