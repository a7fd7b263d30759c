"""Which server is it?

Start a server with `kfs-fast serve`, then: python server_metadata.py [host:port]
"""

import sys

import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
with triton.InferenceServerClient(url) as client:
    metadata = client.get_server_metadata()
    print(metadata.name, metadata.version)
