"""Pipelines: models and custom nodes wired into one servable."""
