"""`edgecal rollout plan`: what a rollout would do."""

from __future__ import annotations

from edgecal.cli.cluster import ClusterWords
from edgecal.cli.rollout.options import LimitWords, OutputWords, PlanWords, takes
from edgecal.cli.story import Story


@takes(words=PlanWords, limits=LimitWords, cluster=ClusterWords, output=OutputWords)
def plan(words: PlanWords, limits: LimitWords, cluster: ClusterWords, output: OutputWords) -> None:
    """Show what a rollout would do: who is in which wave, what is sent, who is refused and why.

    It asks every target, and changes nothing. Targets that a rule refuses are in no wave; one that
    does not answer now is tried in its turn. Exits with 3 if nobody is left to roll out to.

    [bold]Examples[/]

    edgecal rollout plan net-8.5.edgecal net-10.3.edgecal --on 'site-a & !canary'

    edgecal rollout plan net.edgecal --on 'module=orin-*' --waves 1,5,25%,100% --json
    """
    from edgecal.cli.rollout.documents import draft_document
    from edgecal.cli.rollout.drafting import prepare
    from edgecal.cli.rollout.driving import make_world
    from edgecal.cli.rollout.shown import show_draft
    from edgecal.cli.wiring import lookup

    story = Story(as_json=output.as_json, quiet=output.quiet, verbose=output.verbose)
    project = lookup.project()
    over = cluster.request(project)
    found = prepare(words, project, make_world(limits, project), story, over=over).draft
    story.result(
        draft_document(found),
        lambda console: show_draft(console, found, verbose=output.verbose),
    )
