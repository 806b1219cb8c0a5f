"""Raw video through the expert graph into a data set, on one machine or on a cluster."""

from edgekit_experts.pipeline.run import ExtractOptions, ExtractReport, Progress, extract

__all__ = ["ExtractOptions", "ExtractReport", "Progress", "extract"]
