"""Write src/kfs/_proto anew from the .proto files: `python proto/generate.py`.

The messages are put into a descriptor pool of their own. Other packages of this protocol
(tritonclient, kserve) define the same names in the process-wide pool, where a second definition
is refused; a client and this server could not live in one process otherwise.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "kfs" / "_proto"


def generate(target: Path) -> None:
    protos = sorted(str(path) for path in HERE.glob("*.proto"))
    known = files("grpc_tools") / "_proto"  # google/protobuf/any.proto
    if protoc.main(
        ["", f"-I{HERE}", f"-I{known}", f"--python_out={target}", f"--pyi_out={target}", *protos]
    ):
        sys.exit("protoc failed")
    for module in target.glob("*_pb2.py"):
        text = module.read_text()
        text = text.replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool",
            "from kfs._proto.pool import POOL as _POOL",
        )
        module.write_text(text.replace("_descriptor_pool.Default()", "_POOL"))


if __name__ == "__main__":
    generate(TARGET)
