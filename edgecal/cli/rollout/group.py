"""`edgecal rollout`: the commands for fleets, put together."""

from __future__ import annotations

import typer

from edgecal.cli.rollout.plan import plan
from edgecal.cli.rollout.resume import resume
from edgecal.cli.rollout.start import start
from edgecal.cli.rollout.status import list_rollouts, status
from edgecal.cli.rollout.wishes import halt, pause, promote, retry

group = typer.Typer(
    name="rollout",
    help="Bring bundles to a fleet: in waves, with gates, and a journal that any shell can go on "
    "from.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

for _command in (plan, start, status, resume, pause, promote, halt, retry):
    group.command()(_command)
group.command(name="list")(list_rollouts)
