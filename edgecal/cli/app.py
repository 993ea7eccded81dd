"""The `edgecal` command: its commands, and the one door through which errors become exit codes."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import Annotated, Final

import typer
from rich.markup import escape

from edgecal import __version__
from edgecal.cli.attach import attach
from edgecal.cli.audit import audit
from edgecal.cli.batches import batches
from edgecal.cli.cache.group import group as cache
from edgecal.cli.calibrate import calibrate
from edgecal.cli.cancel import cancel
from edgecal.cli.check import check
from edgecal.cli.demo import demo
from edgecal.cli.doctor import doctor
from edgecal.cli.fleet import group as fleet
from edgecal.cli.interrupts import INTERRUPTED, exit_code_of, terminable
from edgecal.cli.keygen import keygen
from edgecal.cli.probe import probe
from edgecal.cli.prune import prune
from edgecal.cli.push import push
from edgecal.cli.rebuild import rebuild
from edgecal.cli.rollback import rollback
from edgecal.cli.rollout.group import group as rollout
from edgecal.cli.sign import sign
from edgecal.cli.status import status
from edgecal.cli.story import Story
from edgecal.cli.targets import group as targets
from edgecal.cli.trust import trust
from edgecal.cli.verify import verify
from edgecal.cli.worker import worker
from edgecal.errors import EdgecalError

_USAGE: Final = 2

app = typer.Typer(
    name="edgecal",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First of all, on any machine: [bold]edgecal demo[/]",
)


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer's form of a callback
    if value:
        typer.echo(f"edgecal {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Calibrate INT8 on a host; let each Jetson build its own engine, and prove that it did.

    A calibration cache can be reused on another machine; an engine cannot.
    """


for _command in (
    demo,
    calibrate,
    batches,
    check,
    push,
    probe,
    status,
    rollback,
    rebuild,
    attach,
    cancel,
    prune,
    trust,
    keygen,
    sign,
    verify,
    audit,
    doctor,
    worker,
):
    app.command()(_command)
app.add_typer(cache)
app.add_typer(targets)
app.add_typer(fleet)
app.add_typer(rollout)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    story = Story(as_json="--json" in given)
    try:
        with terminable():
            app(args=given, prog_name="edgecal")
    except SystemExit as end:
        # typer ends the process itself, after an interrupt too
        if (code := exit_code_of(end)) is not None:
            sys.exit(_report_interrupt(code, story))
        if end.code == _USAGE and story.as_json:
            story.error(
                _USAGE, "usage", "the command line is wrong; stderr says how", remedy="--help"
            )
        raise
    except KeyboardInterrupt as error:
        sys.exit(_report_interrupt(exit_code_of(error) or INTERRUPTED, story))
    except EdgecalError as error:
        sys.exit(_report(error, story))
    except BrokenPipeError:
        # the reader of our stdout went away: say nothing, and let Python flush into nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the one door: anything else is a bug of ours
        sys.exit(_report_bug(error, story))


def _report_interrupt(code: int, story: Story) -> int:
    what = "interrupted; nothing half-done is left active"
    if story.as_json:
        story.error(code, "interrupted", what, remedy="run it again: it goes on from here")
    story.err.print(what)
    return code


def _report(error: EdgecalError, story: Story) -> int:
    if story.as_json:
        story.error(error.exit_code, error.code, error.what, where=error.where, remedy=error.remedy)
    story.failure(error)
    return error.exit_code


def _report_bug(error: Exception, story: Story) -> int:
    with tempfile.NamedTemporaryFile(
        "w", prefix="edgecal-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        traceback.print_exception(error, file=log)
    what = f"a bug in edgecal: {type(error).__name__}: {error}"
    remedy = f"report it with {log.name}, which holds the details"
    if story.as_json:
        story.error(1, "bug", what, remedy=remedy)
    story.err.print(f"[bold red]error[/] {escape(what)}")
    story.err.print(f"  try: {escape(remedy)}")
    return 1
