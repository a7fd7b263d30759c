"""Why a pipeline cannot be served."""

from __future__ import annotations

from kfs.errors import ModelLoadError


class PipelineError(ModelLoadError):
    """A pipeline that cannot be served, in one readable line.

    Attributes:
        status: OpenVINO Model Server's name for it, for those who know its logs.
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


def node_fault(status: str, node: str, text: str) -> PipelineError:
    return PipelineError(status, f"node {node}: {text}")
