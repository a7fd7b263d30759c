"""The RPCs that ask about the server and its servables, on messages."""

from __future__ import annotations

from collections.abc import Callable

from kfs import __version__
from kfs._proto import grpc_predict_v2_pb2 as pb
from kfs.errors import ServingError
from kfs.repository.catalog import Catalog, available_servable
from kfs.repository.versions import State, VersionEntry
from kfs.signature import TensorSpec

SERVER_NAME = "kfs-fast"
PLATFORM = "OpenVINO"


class ControlHandler:
    """Answers about liveness, readiness and metadata.

    `is_ready` is False while the first models are loaded and True from then on, whatever
    became of them.
    """

    def __init__(self, catalog: Catalog, is_ready: Callable[[], bool]) -> None:
        self._catalog = catalog
        self._is_ready = is_ready

    def server_live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_ready())

    def server_metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=__version__)

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        entry, servable = self._catalog.find_available(request.name, request.version)
        entry.metrics.count("ModelReady")
        return pb.ModelReadyResponse(ready=servable is not None)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        found, servable = self._catalog.find_available(request.name, request.version)
        try:
            servable = servable or available_servable(found, request.name)
        except ServingError:
            found.metrics.count("ModelMetadata", failed=True)
            raise
        found.metrics.count("ModelMetadata")
        versions = self._catalog.entry(request.name).versions.values()
        available = {entry.version for entry in versions if entry.is_available}
        return pb.ModelMetadataResponse(
            name=servable.name,
            versions=[str(version) for version in sorted(available | {servable.version})],
            platform=PLATFORM,
            inputs=[_metadata(spec) for spec in servable.signature.inputs],
            outputs=[_metadata(spec) for spec in servable.signature.outputs],
        )

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Every version of every name; a name without any has one line of its own."""
        answer = pb.RepositoryIndexResponse()
        for name, entry in sorted(self._catalog.snapshot.items()):
            versions = [entry.versions[number] for number in sorted(entry.versions)]
            if not versions:
                answer.models.add(
                    name=name, state="UNAVAILABLE", reason=entry.error or "no version"
                )
            is_told = any(version.error for version in versions)
            for version in versions:
                answer.models.add(
                    name=name,
                    version=str(version.version),
                    state=_index_state(version),
                    # Of what goes on as it was, why it could not be replaced.
                    reason=version.error or (not is_told and entry.error) or "",
                )
        if request.ready:
            kept = [model for model in answer.models if model.state == "READY"]
            return pb.RepositoryIndexResponse(models=kept)
        return answer


def _index_state(entry: VersionEntry) -> str:
    """The state of a version in Triton's words."""
    if entry.state is State.LOADING and entry.error is None:
        return "LOADING"
    return {State.AVAILABLE: "READY", State.UNLOADING: "UNLOADING"}.get(entry.state, "UNAVAILABLE")


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype.name, shape=spec.metadata_shape
    )
