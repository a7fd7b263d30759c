"""What does this model take, and what does it give?

Start a server with `kfs-fast serve`, then: python model_metadata.py [host:port]
"""

import sys

import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
with triton.InferenceServerClient(url) as client:
    metadata = client.get_model_metadata("digits")
    for tensor in [*metadata.inputs, *metadata.outputs]:
        print(tensor.name, tensor.datatype, list(tensor.shape))
