"""Threads that are bound to no cores where all cores are alike."""

import os
import subprocess
import sys
from pathlib import Path

import openvino
import pytest

from kfs.cli.cores import BINDING_VARIABLE, bind_no_threads

# Whether hwloc, as OpenVINO brings it, binds threads in a process that has called the function.
BINDS = """
import ctypes, pathlib, sys
from kfs.cli.cores import bind_no_threads
bind_no_threads(pathlib.Path(sys.argv[1]))
hwloc = ctypes.CDLL(sys.argv[2])
topology = ctypes.c_void_p()
assert hwloc.hwloc_topology_init(ctypes.byref(topology)) == 0
assert hwloc.hwloc_topology_load(topology) == 0
print(hwloc.hwloc_topology_is_thissystem(topology))
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINDING_VARIABLE, "")  # so that it is put back
    monkeypatch.delenv(BINDING_VARIABLE)


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Two cores with one thread each, on one node."""
    for name, text in {
        "cpu/smt/active": "0", "node/online": "0",
        "cpu/cpu0/cpu_capacity": "1024", "cpu/cpu1/cpu_capacity": "1024",
    }.items():  # fmt: skip
        path = tmp_path / "system" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return tmp_path


def test_openvino_binds_no_thread_where_cores_are_alike(alike: Path) -> None:
    found = list((Path(openvino.__file__).parent / "libs").glob("libhwloc.so*"))
    if not found:
        pytest.skip("OpenVINO comes without hwloc here")

    def binds(devices: Path) -> str:
        command = [sys.executable, "-c", BINDS, str(devices), str(found[0])]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert binds(alike) == "0"
    assert binds(alike / "nothing") == "1"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("system/cpu/smt/active", "1"),
        ("system/node/online", "0-1"),
        ("system/cpu/cpu1/cpu_capacity", "512"),
        ("cpu_atom", ""),
    ],
)
def test_openvino_chooses_where_cores_differ(alike: Path, name: str, text: str) -> None:
    (alike / name).write_text(text + "\n")
    assert not bind_no_threads(alike)
    assert BINDING_VARIABLE not in os.environ


def test_what_the_environment_says_stands(alike: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINDING_VARIABLE, "1")
    assert not bind_no_threads(alike)
    assert os.environ[BINDING_VARIABLE] == "1"
