"""Models compiled by OpenVINO; the only folder that imports it."""

from kfs.servables.model.compile import add_extension, share_cores
from kfs.servables.model.model import Model

__all__ = ["Model", "add_extension", "share_cores"]
