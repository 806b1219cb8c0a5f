"""Experts that are networks. On a CPU they run compiled, never in eager torch."""
