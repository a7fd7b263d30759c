"""Print a text while the server is still writing it: one request, many answers.

Start a server as docs/graphs.md tells, then: python rhymes.py [host:port] [prompt] [letters]
"""

import sys

import numpy as np
import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
prompt = sys.argv[2] if len(sys.argv) > 2 else "Twinkle, "
length = int(sys.argv[3]) if len(sys.argv) > 3 else 300


def show(result: triton.InferResult | None, error: Exception | None) -> None:
    """Called on a thread of the client, for every answer as it comes."""
    text = f"\n{error}" if result is None else result.as_numpy("text")[0].decode()
    print(text, end="", flush=True)


with triton.InferenceServerClient(url) as client:
    client.start_stream(show)
    text = triton.InferInput("prompt", [1], "BYTES")
    text.set_data_from_numpy(np.array([prompt.encode()], np.object_))
    letters = triton.InferInput("length", [1], "INT32")
    letters.set_data_from_numpy(np.array([length], np.int32))
    print(prompt, end="")
    client.async_stream_infer("rhymes", [text, letters])
    client.stop_stream()  # says that this was all, and waits for the last answer
    print()
