"""Tensors between the rooms: arrays, strings and images."""
