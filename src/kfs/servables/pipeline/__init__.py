"""Pipelines: models and custom nodes wired into one servable."""

from kfs.servables.pipeline.faults import PipelineError
from kfs.servables.pipeline.library import INCLUDE_FOLDER, Library, open_library
from kfs.servables.pipeline.pipeline import Pipeline
from kfs.servables.pipeline.spec import LibrarySpec, PipelineSpec, parse, parse_library

__all__ = [
    "INCLUDE_FOLDER",
    "Library", "LibrarySpec", "Pipeline", "PipelineError", "PipelineSpec", "open_library", "parse",
    "parse_library",
]  # fmt: skip
