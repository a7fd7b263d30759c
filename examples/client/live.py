"""Is the server there?

Start a server with `kfs-fast serve`, then: python live.py [host:port]
"""

import sys

import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
with triton.InferenceServerClient(url) as client:
    print("live:", client.is_server_live())
