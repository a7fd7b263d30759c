"""Ask two models with one request: a graph answers like a model.

Start a server as docs/graphs.md tells, then: python two_models.py [host:port]
"""

import sys

import cv2
import numpy as np
import tritonclient.grpc as triton

from kfs.digits import images

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
with triton.InferenceServerClient(url) as client:
    for file in images():
        pixels = cv2.imread(str(file.path), cv2.IMREAD_GRAYSCALE)
        image = pixels.astype(np.float32)[np.newaxis, :, :, np.newaxis]
        tensor = triton.InferInput("image", image.shape, "FP32")
        tensor.set_data_from_numpy(image)
        result = client.infer("two_models", [tensor])
        digit = result.as_numpy("probabilities").argmax()
        even, odd = result.as_numpy("parity")[0]
        print(f"{file.path.name}: {digit}, {'even' if even > odd else 'odd'}")
