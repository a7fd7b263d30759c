"""The hot path: bytes, memory and datatypes; nothing of numpy, openvino or grpc."""
