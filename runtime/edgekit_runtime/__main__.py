"""`python -m edgekit_runtime` is `edgekit-run`."""

from edgekit_runtime.cli import program

program()
