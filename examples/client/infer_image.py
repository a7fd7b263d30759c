"""Send image files as they are: the server decodes and resizes them.

Start a server with `kfs-fast serve`, then: python infer_image.py [host:port]
"""

import sys

import numpy as np
import tritonclient.grpc as triton

from kfs.digits import images

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
files = images()
encoded = np.array([file.path.read_bytes() for file in files], dtype=np.object_)
with triton.InferenceServerClient(url) as client:
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(encoded)
    result = client.infer("digits", [tensor])
    for file, row in zip(files, result.as_numpy("probabilities"), strict=True):
        print(f"{file.path.name}: {row.argmax()}")
