"""What goes wrong in the fault table: each fault happens while everything stands still."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.bench import Bench, mount, wait_until

if TYPE_CHECKING:
    from edgecal.adapters.loopback import LoopbackServer
    from tests.faults.bench import Controller

DISK_FULL = "disk full"
TARGETS_CLOCK = "target's clock goes back"
CONTROLLERS_CLOCK = "controller's clock goes ahead"
_LOOKS_S = 4.5
"""In which a controller looks at a build at least once: it may not think that years have passed."""


def cut(bench: Bench, controller: Controller, _pid: int) -> None:
    """Cut the connection; what the target was doing, it goes on doing."""
    if bench.server is None:
        bench.breakpoint.cut()
    else:
        kill_connections(bench.server)
    # where the controller itself stands still, it hears of that when it goes on
    if not bench.place.startswith("before "):
        wait_until(lambda: controller.ended, "a controller that hears of the cut")
    bench.breakpoint.go()


def kill_connections(server: LoopbackServer) -> None:
    """Kill the sshd of every connection, and nothing that it started."""
    parents = {server._stop.args[0].pid}  # type: ignore[attr-defined]
    for _ in range(2):  # one more process a connection since OpenSSH 9.8, and for other users
        children = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                head, _, rest = stat.read_text().rpartition(")")
                if int(rest.split()[1]) in parents and "(sshd" in head:
                    children.add(int(stat.parent.name))
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        parents = children


def kill_controller(bench: Bench, controller: Controller, _pid: int) -> None:
    """Kill the controller; what the target was doing, it goes on doing."""
    controller.kill()
    wait_until(lambda: controller.ended, "the controller's end")
    bench.breakpoint.go()


def kill_target(_bench: Bench, _controller: Controller, pid: int) -> None:
    """Kill what runs on the target."""
    os.kill(pid, signal.SIGKILL)


def fill_disk(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Leave neither a byte nor a file on the target's disk."""
    if os.path.ismount(bench.root):
        filler = bench.root / "filler"
        filler.mkdir()
        with contextlib.suppress(OSError), (filler / "bytes").open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
        with contextlib.suppress(OSError):
            for number in range(10_000):
                (filler / str(number)).touch()
    else:
        (bench.breakpoint.folder / "limited").touch()
    bench.breakpoint.go()


def deny(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Take the right to write anything on the target."""
    if bench.server is not None and os.geteuid() == 0:
        mount("--bind", str(bench.root), str(bench.root))
        mount("-o", "remount,bind,ro", str(bench.root))
        bench.is_bound = True
    elif bench.workshop.user is not None:
        subprocess.run(["chown", "-hR", "0:0", str(bench.root)], check=True)
    else:
        subprocess.run(["chmod", "-R", "a-w", str(bench.root)], check=True)
    bench.breakpoint.go()


def damage_upload(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Change a bit of what is sent."""
    bench.breakpoint.go("corrupt")


def halve_upload(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Lose the second half of what is sent."""
    bench.breakpoint.go("half")


def rot_part(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Have the first bytes of a file on the target already, and wrong ones."""
    digest = bench.workshop.bundles["new"].manifest_digest.removeprefix("sha256:")
    (bench.root / "blobs" / "sha256" / f"{digest}.part").write_bytes(b"?" * 100)
    bench.own()
    bench.breakpoint.go()


def rot_blob(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Damage a file that the target has."""
    digest = bench.workshop.bundles["new"].manifest.files["model.onnx"].digest
    blob = bench.root / "blobs" / "sha256" / digest.removeprefix("sha256:")
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    bench.breakpoint.go()


def let_other_push(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Have somebody else push something else, from the beginning to the end."""
    other = bench.push("new", "--no-fp16").outcome()
    busy = (other.exit_code, other.code) == (4, "busy")
    assert busy or other.state == "active", other
    bench.breakpoint.go()


def turn_targets_clock(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Have the target's clock jump: a Jetson without a battery wakes up in the past."""
    assert bench.targets_clock
    bench.targets_clock.write_text("-20y")
    bench.breakpoint.go()


def turn_controllers_clock(bench: Bench, _controller: Controller, _pid: int) -> None:
    """Have the controller's clock jump."""
    assert bench.controllers_clock
    bench.controllers_clock.write_text("+20y")
    if bench.place == "trtexec-build":
        time.sleep(_LOOKS_S)
    bench.breakpoint.go()


def require_signature(bench: Bench) -> None:
    """Leave it as it is: every device of the table requires one."""
    assert (bench.etc.folder / "policy").exists()


def forget_keys(bench: Bench) -> None:
    """Take the device's keys away."""
    for path in (bench.etc.folder / "keys").iterdir():
        path.unlink()


def raise_counter(bench: Bench) -> None:
    """Have had a newer bundle."""
    with (bench.root / "counters").open("a") as file:
        file.write("net-8.5 3\n")


def rename_device(bench: Bench) -> None:
    """Be another device."""
    bench.etc.policy("require_signature=yes", "name=robot1")


FAULTS = {
    "connection cut": cut,
    "controller killed": kill_controller,
    "target process killed": kill_target,
    DISK_FULL: fill_disk,
    "permission denied": deny,
    "upload corrupted": damage_upload,
    "upload cut short": halve_upload,
    "part rotten": rot_part,
    "file rotten": rot_blob,
    TARGETS_CLOCK: turn_targets_clock,
    CONTROLLERS_CLOCK: turn_controllers_clock,
    "second operator": let_other_push,
}
"""What happens at the place of a row."""

SIGNATURES = {
    "unsigned": ("unsigned", require_signature),
    "signed by somebody else": ("foreign", require_signature),
    "manifest changed": ("tampered", require_signature),
    "no key on the device": ("new", forget_keys),
    "older than the last": ("new", raise_counter),
    "for another device": ("new", rename_device),
}
"""What is wrong from the beginning: the bundle that is pushed, and what the device is like."""


def heal(bench: Bench) -> None:
    """Do what an operator does about a disk and permissions; clocks stay wrong."""
    filler = bench.root / "filler"
    if filler.exists():
        subprocess.run(["rm", "-rf", str(filler)], check=True)
    (bench.breakpoint.folder / "limited").unlink(missing_ok=True)
    (bench.breakpoint.folder / "cut").unlink(missing_ok=True)
    if bench.is_bound:
        subprocess.run(["umount", "-l", str(bench.root)], check=True)
    bench.own()
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "u+w", str(bench.root)], check=True)
