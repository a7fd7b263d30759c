"""kfs-fast: a KServe v2 gRPC inference server for OpenVINO models."""

__version__ = "0.1.0"
