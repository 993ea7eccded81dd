"""The whole error tree: whose fault it is, in three parts, with an exit code.

The class says whose fault it is: yours (2), the pairing's (3), the device's (4). Anything that is
not an `EdgecalError` is a bug in edgecal (1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgecal.core.findings import Finding


class EdgecalError(Exception):
    """What happened, where, and what to do about it.

    Parameters
    ----------
    what
        One clause: what was expected and what was found.
    where
        The file and line, the tensor, or the target; empty when the whole command is meant.
    remedy
        What the reader can do next.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "edgecal"

    def __init__(self, what: str, *, where: str = "", remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """Render the three parts on two lines, as the terminal shows them."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  try: {self.remedy}"

    def __reduce__(self) -> tuple[Callable[..., EdgecalError], tuple[object, ...]]:
        """Go whole to another process; an exception's own way knows no keywords."""
        return _again, (type(self), self.args, dict(vars(self)))

    def to_json(self) -> dict[str, str]:
        """Give the keys scripts rely on."""
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "remedy": self.remedy,
        }


def _again(
    kind: type[EdgecalError], args: tuple[object, ...], parts: dict[str, object]
) -> EdgecalError:
    error = kind.__new__(kind, *args)
    vars(error).update(parts)
    return error


class InputError(EdgecalError):
    """Something given to edgecal is unreadable, corrupt or unknown."""

    exit_code = 2
    code = "input"


class CacheFormatError(InputError):
    """A calibration cache does not have the form TensorRT reads."""

    code = "cache-format"


class ModelError(InputError):
    """A model cannot be read, or cannot be calibrated."""

    code = "model"


class DatasetError(InputError):
    """Calibration data cannot be read, or does not fit the network."""

    code = "dataset"


class BackendError(InputError):
    """TensorRT on this host did not calibrate, and neither network nor data is to blame."""

    code = "backend"


class BundleError(InputError):
    """A bundle is missing, corrupt or of an unknown schema."""

    code = "bundle"


class InventoryError(InputError):
    """The configuration names something that does not hold."""

    code = "inventory"


class DependencyError(InputError):
    """An optional package is not installed; the message names the extra."""

    code = "dependency"


class ClusterError(InputError):
    """A cluster cannot be reached, or cannot do what was asked."""

    code = "cluster"


class WorkerError(EdgecalError):
    """A worker of a cluster was lost; nobody knows how far it had come."""

    exit_code = 4
    code = "worker"


class IncompatibleError(EdgecalError):
    """A shipment or build was refused; `findings` says by which rules."""

    exit_code = 3
    code = "incompatible"

    def __init__(
        self, what: str, *, where: str = "", remedy: str, findings: Sequence[Finding] = ()
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.findings = tuple(findings)


class TargetError(EdgecalError):
    """A target failed."""

    exit_code = 4
    code = "target"


class ConnectError(TargetError):
    """A target cannot be reached, or refuses the login."""

    code = "connect"


class HostKeyError(ConnectError):
    """A target's host key is unknown, changed or revoked."""

    code = "host-key"


class CommandError(TargetError):
    """A command on a target failed."""

    code = "command"


class BusyError(CommandError):
    """Somebody else is at work on the same model there; `holder` is lock, process, start time."""

    code = "busy"

    def __init__(
        self, what: str, *, where: str = "", remedy: str, holder: tuple[str, str, str]
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.holder = holder


class NotNowError(CommandError):
    """An application on the target asked that nothing be activated now."""

    code = "not-now"


class TransferError(TargetError):
    """A file did not arrive whole."""

    code = "transfer"


class BuildError(TargetError):
    """A build on a target failed, or did not use the cache."""

    code = "build"


class VerificationError(TargetError):
    """A built engine's outputs are too far from the host's."""

    code = "verification"


class HealthError(TargetError):
    """An engine was activated and did not pass its health check."""

    code = "health"


class Cancelled(EdgecalError):  # noqa: N818 - not a fault, a wish
    """The caller asked for a stop; nothing half-done is left active."""

    exit_code = 130
    code = "cancelled"
