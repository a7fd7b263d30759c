"""Can this model be used?

Start a server with `kfs-fast serve`, then: python model_ready.py [host:port]
"""

import sys

import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
with triton.InferenceServerClient(url) as client:
    print("digits ready:", client.is_model_ready("digits"))
