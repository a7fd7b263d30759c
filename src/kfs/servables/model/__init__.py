"""Models compiled by OpenVINO; the only folder that imports it."""

import sys

# Otherwise OpenVINO's package tells a service on the net of every import, and leaves files in the
# home folder. Where the module is not to be had, it does neither.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

from kfs.servables.model.compile import add_extension, share_cores  # noqa: E402
from kfs.servables.model.model import Model  # noqa: E402

__all__ = ["Model", "add_extension", "share_cores"]
