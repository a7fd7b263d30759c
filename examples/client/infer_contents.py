"""Send a tensor as typed contents, with the protocol's messages.

Start a server with `kfs-fast serve`, then: python infer_contents.py [host:port]
"""

import sys

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
image = np.zeros((1, 8, 8, 1), np.float32)
image[0, 1:7, 3:5] = 255
request = service_pb2.ModelInferRequest(model_name="digits")
tensor = request.inputs.add(name="image", datatype="FP32", shape=image.shape)
tensor.contents.fp32_contents.extend(image.ravel())
with grpc.insecure_channel(url) as channel:
    response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
print("digit:", np.frombuffer(response.raw_output_contents[0], np.float32).argmax())
