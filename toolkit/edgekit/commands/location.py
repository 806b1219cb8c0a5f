"""How commands name a data set: a folder, or the URL of one. A `Path` would make `s3:/a` of `s3://a`."""

from __future__ import annotations

from typing import Annotated

import typer

DataArgument = Annotated[
    str, typer.Argument(metavar="DATA", help="A data set that extract or import made: a folder or a URL.")
]
DataOutput = Annotated[
    str,
    typer.Option(
        "-o", "--output", metavar="DATA", help="The data set to write to: a folder or a URL (s3://bucket/data)."
    ),
]
