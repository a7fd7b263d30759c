"""What has to be compiled: the hot path, bytes, memory and datatypes, and calls into custom nodes.

Nothing of numpy, openvino or grpc.
"""
