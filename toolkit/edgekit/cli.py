"""The `edgekit` command: one frame around all commands for errors, interruption and exit status.

Nothing heavy is imported here or at the top of a command module: `edgekit --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from edgekit._version import __version__
from edgekit.commands import (
    bench,
    build,
    bundle,
    data,
    demo,
    doctor,
    experts,
    profiles,
    rounds,
    run,
    scores,
    training,
    view,
)
from edgekit.console import console
from edgekit_runtime.errors import EdgekitError

INTERRUPTED = 130

app = typer.Typer(
    name="edgekit",
    help="Raw video in, a compiled sub-million-parameter model out, running live on the device you own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works after the command too.")
    ] = False,
) -> None:
    pass


for _module in (demo, data, view, experts, training, scores, rounds, build, bench, profiles, bundle, run, doctor):
    _module.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Taken out here, so that it may stand before or after the name of the command.
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        status = typer.main.get_command(app).main(
            # Commands that start processes of themselves (--devices) find their arguments as `context.obj`.
            arguments,
            prog_name="edgekit",
            standalone_mode=False,
            obj=arguments,
        )
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        _say(f"Interrupted. {_after_interruption(arguments[0] if arguments else '')}")
        return INTERRUPTED
    except Exception as error:
        if debug:
            console.print_exception(show_locals=False)
        return _explain(error)


def _after_interruption(command: str) -> str:
    if command in ("train", "distill"):
        return "What was finished is kept; the same command with --resume goes on from there."
    if command in ("extract", "label", "round", "demo"):
        return "What was finished is kept; the same command goes on from there."
    return "Nothing half-written is left."


def _explain(error: Exception) -> int:
    """One or two lines on stderr: what is wrong, what to do. Returns the exit status."""
    match error:
        case EdgekitError():
            what, _, hint = str(error).partition("\n")
            _say(f"Error: {what}", hint)
            return error.exit_status
        case typer.TyperException():
            # With no command at all the help is the message.
            text = error.format_message()
            _say(text if "Usage:" in text else f"Error: {text}")
            return error.exit_code
        case BrokenPipeError():
            # The reader (head, less) has left; Python must not try to flush into the closed pipe at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case OSError(errno=errno.ENOSPC):
            _say("Error: there is no space left on the disk.", "Free some space; nothing half-written was kept.")
            return 1
        case OSError(errno=errno.EACCES | errno.EROFS | errno.EPERM | errno.ENOTDIR | errno.EISDIR | errno.EEXIST):
            reason = (error.strerror or str(error)).lower()
            _say(f"Error: {error.filename or 'a file'}: {reason}.", "Choose a place that you may read and write.")
            return 1
        case _:
            _say(
                f"Internal error: {type(error).__name__}: {error}".splitlines()[0],
                "Please report it with the output of the same command and --debug.",
            )
            return 1


def _say(what: str, hint: str = "") -> None:
    console.print(what, markup=False)
    if hint:
        console.print(hint, markup=False)
