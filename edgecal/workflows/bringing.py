"""Files brought to a worker of a cluster, by digest: what it has already is not sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from edgecal.ports import Cluster

_CHUNK: Final = 4 << 20


def bring(
    cluster: Cluster, worker: str, files: Mapping[str, Callable[[], BinaryIO]], *, sender: str
) -> int:
    """Send a worker the files that it lacks, and count their bytes.

    Parameters
    ----------
    files
        How to open each, by digest. The worker checks them.
    sender
        Hex digits that no other sender has.
    """
    sent = 0
    for digest in cluster.call(worker, "missing", tuple(files)):
        offset, last = 0, False
        with files[digest]() as stream:
            data = stream.read(_CHUNK)
            while not last:
                ahead = stream.read(_CHUNK)
                last = not ahead
                cluster.call(worker, "put", digest, sender, offset, data, last)
                offset, data = offset + len(data), ahead
        sent += offset
    return sent
