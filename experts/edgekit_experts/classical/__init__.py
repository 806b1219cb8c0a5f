"""Experts that need no weights: colour, edges, flow, normals, and combinations of label maps."""
