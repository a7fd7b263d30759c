"""Generated from proto/; see tests/test_proto.py."""
