"""`edgecal cache`: the commands for calibration caches, put together."""

from __future__ import annotations

import typer

from edgecal.cli.cache.check import check
from edgecal.cli.cache.convert import convert
from edgecal.cli.cache.diff import diff
from edgecal.cli.cache.edit import edit
from edgecal.cli.cache.fill import fill
from edgecal.cli.cache.merge import merge
from edgecal.cli.cache.restamp import restamp
from edgecal.cli.cache.show import show

group = typer.Typer(
    name="cache",
    help="Read, compare, check, edit, complete and convert calibration caches.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog="A FILE may be a bundle: then its cache is read. Nothing is ever written in a bundle.",
)

for _command in (show, diff, check, edit, merge, fill, restamp, convert):
    group.command()(_command)
