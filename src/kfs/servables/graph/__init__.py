"""Graphs: calculators that pass packets along streams, read from MediaPipe's graph files."""

from kfs.servables.graph.calculator import Calculator, CalculatorError, Contract, NodeContext
from kfs.servables.graph.graph import Graph
from kfs.servables.graph.spec import GraphError

__all__ = ["Calculator", "CalculatorError", "Contract", "Graph", "GraphError", "NodeContext"]
