"""The step that brings a release's files to the target, as far as they are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecal.errors import IncompatibleError
from edgecal.workflows.events import CacheShipped, PushEvent, Step, StepDue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgecal.workflows.plan import Plan
    from edgecal.workflows.site import Site
    from edgecal.workflows.upload import DeviceFile


def ship(plan: Plan, release: str, site: Site) -> Iterator[PushEvent]:
    """Send what the target's store lacks, going on where an earlier transfer was cut.

    Raises
    ------
    IncompatibleError
        If the target's disk cannot hold it.
    TransferError
        If a file does not arrive as it was sent.
    """
    distinct = _distinct(plan)
    there = site.device.want(plan.name, release, distinct, owner=site.world.owner)
    wanted = _count(distinct, there, site)
    yield StepDue(Step.SHIP, str(site.report.bytes_to_send))

    def sent(count: int) -> None:
        site.world.cancel.check()
        site.world.limits.pace(site.target, count, site.world.cancel)
        if site.options.upload_progress is not None:
            site.options.upload_progress(count)

    with site.world.limits.transfers(site.target, site.world.cancel):
        for file in wanted:
            site.world.cancel.check()
            part = there[file.hex] or 0
            # a whole part that was never renamed has nothing left to send: begin anew
            offset = part if part < file.size else 0
            site.device.store(file, offset=offset, progress=sent)
    yield CacheShipped(site.report.bytes_to_send, site.report.bytes_present)


def look_ahead(plan: Plan, site: Site) -> None:
    """Find out what would be sent and built, leaving nothing behind.

    Raises
    ------
    IncompatibleError
        If the target's disk could not hold it.
    """
    distinct = _distinct(plan)
    _count(distinct, site.device.look(distinct), site)
    folder = site.device.release_folder(plan.name, plan.release_id())
    site.report.to_build = site.device.digest(folder, plan.kind.engine_file) is None


def _distinct(plan: Plan) -> list[DeviceFile]:
    return list({file.hex: file for file in plan.files.values()}.values())


def _count(
    distinct: Sequence[DeviceFile], there: Mapping[str, int | None], site: Site
) -> list[DeviceFile]:
    """Tell the report what is there, and give what is not."""
    wanted = [file for file in distinct if there[file.hex] is not None]
    site.report.bytes_to_send = sum(file.size for file in wanted)
    site.report.bytes_present = sum(file.size for file in distinct) - site.report.bytes_to_send
    _check_space(site, sum(there[file.hex] or 0 for file in wanted))
    return wanted


def _check_space(site: Site, begun: int) -> None:
    """Refuse what the disk cannot hold; the probe could not know what is there already."""
    free, needed = site.facts.disk_free_bytes, site.report.bytes_to_send - begun
    if free is not None and needed > free:
        raise IncompatibleError(
            f"disk-space: {needed / 2**20:.1f} MiB are still to be sent to {site.facts.root}, "
            f"{free / 2**20:.1f} MiB are free",
            where=site.target.name,
            remedy="free space there; 'edgecal prune' removes what is not needed any more",
        )
