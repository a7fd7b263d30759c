"""The calculators that every server has, by the names that graph files use."""

from __future__ import annotations

from kfs.servables.graph.calculator import Calculator
from kfs.servables.graph.calculators.converter import PyTensorOvTensorConverterCalculator
from kfs.servables.graph.calculators.image import (
    ImageTransformationCalculator,
    OpenVINOConverterCalculator,
)
from kfs.servables.graph.calculators.inference import OpenVINOInferenceCalculator
from kfs.servables.graph.calculators.pass_through import PassThroughCalculator
from kfs.servables.graph.calculators.python import PythonExecutorCalculator
from kfs.servables.graph.calculators.results import (
    OpenVINOTensorsToClassificationCalculator,
    OpenVINOTensorsToDetectionsCalculator,
)
from kfs.servables.graph.calculators.session import OpenVINOModelServerSessionCalculator

_ALL: tuple[type[Calculator], ...] = (
    ImageTransformationCalculator,
    OpenVINOConverterCalculator,
    OpenVINOInferenceCalculator,
    OpenVINOModelServerSessionCalculator,
    OpenVINOTensorsToClassificationCalculator,
    OpenVINOTensorsToDetectionsCalculator,
    PassThroughCalculator,
    PyTensorOvTensorConverterCalculator,
    PythonExecutorCalculator,
)

BUILTIN = {calculator.__name__: calculator for calculator in _ALL}
