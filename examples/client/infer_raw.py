"""Send a tensor as raw contents: the fastest way, and what tritonclient does by itself.

Start a server with `kfs-fast serve`, then: python infer_raw.py [host:port]
"""

import sys

import numpy as np
import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
image = np.zeros((1, 8, 8, 1), np.float32)
image[0, 1:7, 3:5] = 255  # a vertical bar: something like a one
with triton.InferenceServerClient(url) as client:
    tensor = triton.InferInput("image", image.shape, "FP32")
    tensor.set_data_from_numpy(image)
    result = client.infer("digits", [tensor], request_id="bar")
    print("digit:", result.as_numpy("probabilities").argmax())
