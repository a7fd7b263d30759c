"""The tensors of Python handlers: `from pyovms import Tensor` inside them.

Outside a server, importing this module makes that line work too, to try a handler alone.
"""

from __future__ import annotations

import sys

from kfs._fast.pytensor import Tensor, from_server

__all__ = ["Tensor", "from_server"]

# Handlers import it by this name, whatever package of the name may be installed: tensors of
# another could not pass through this server.
sys.modules["pyovms"] = sys.modules[__name__]
