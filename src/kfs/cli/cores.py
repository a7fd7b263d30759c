"""Calls that OpenVINO leaves on the core they run on."""

from __future__ import annotations

import os
from pathlib import Path

_DEVICES = Path("/sys/devices")

#: hwloc's own variable; with "0" it binds no thread of this process to any core.
BINDING_VARIABLE = "HWLOC_THISSYSTEM"


def bind_no_threads(devices: Path = _DEVICES) -> bool:
    """Spare every inference from being bound to cores, where that means all of them.

    OpenVINO's scheduler, oneTBB, binds the thread of a call through hwloc before each inference
    and lets it go afterwards: to one thread of each core, to the cores of one kind, of one node.
    Where cores have one thread, are of one kind and share one memory, it takes time for nothing.
    To be called before OpenVINO is imported.

    Args:
        devices: Linux's description of the machine.

    Returns:
        Whether it was done: nothing is on other machines, or when the environment says already
        what hwloc is to do.
    """
    if BINDING_VARIABLE in os.environ or not _are_alike(devices):
        return False
    os.environ[BINDING_VARIABLE] = "0"
    return True


def _are_alike(devices: Path) -> bool:
    cores = devices / "system" / "cpu"
    try:
        has_one_thread_each = (cores / "smt" / "active").read_text().strip() == "0"
        has_one_node = (devices / "system" / "node" / "online").read_text().strip() == "0"
        capacities = {path.read_text() for path in cores.glob("cpu[0-9]*/cpu_capacity")}
    except OSError:
        return False
    is_hybrid = (devices / "cpu_atom").exists() or len(capacities) > 1
    return has_one_thread_each and has_one_node and not is_hybrid
