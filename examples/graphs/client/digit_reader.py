"""Send image files to a graph with Python before and after its model; read texts.

Start a server as docs/graphs.md tells, then: python digit_reader.py [host:port]
"""

import sys

import numpy as np
import tritonclient.grpc as triton

from kfs.digits import images

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
with triton.InferenceServerClient(url) as client:
    for file in images():
        tensor = triton.InferInput("picture", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([file.data], np.object_))
        result = client.infer("digit_reader", [tensor])
        print(f"{file.path.name}: {result.as_numpy('text')[0].decode()}")
