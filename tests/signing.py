"""Keys by openssl itself, and a device's /etc/edgecal in a folder of the test's own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgecal.ports import Scripts

PLACE = "/etc/edgecal"


def openssl(*words: str | Path) -> bytes:
    """Run the openssl of this machine."""
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@dataclass(frozen=True)
class Authority:
    """Somebody who signs, without any code of edgecal."""

    key: Path
    public: Path

    def sign(self, file: Path) -> Path:
        """Write the signature beside the file."""
        signature = file.with_name(f"{file.name}.sig")
        openssl("dgst", "-sha256", "-sign", self.key, "-out", signature, file)
        return signature


def authority(folder: Path, name: str = "release") -> Authority:
    """Make keys."""
    key, public = folder / f"{name}.key", folder / f"{name}.pem"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    openssl("ec", "-in", key, "-pubout", "-out", public)
    return Authority(key, public)


@dataclass(frozen=True)
class Etc:
    """What root has put on a device once."""

    folder: Path

    def trust(self, *public: Path) -> None:
        """Add keys."""
        keys = self.folder / "keys"
        keys.mkdir(parents=True, exist_ok=True)
        for file in public:
            (keys / file.name).write_bytes(file.read_bytes())

    def policy(self, *lines: str) -> None:
        """Write the policy."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "policy").write_text("".join(f"{line}\n" for line in lines))

    def scripts(self, scripts: Scripts) -> Scripts:
        """Give the target's scripts, looking here; there is no way to say so to the real ones."""
        return replace(
            scripts, probe=self._moved(scripts.probe), verify=self._moved(scripts.verify)
        )

    def _moved(self, script: str) -> str:
        assert script.count(f"etc={PLACE}\n") == 1
        return script.replace(f"etc={PLACE}\n", f"etc='{self.folder}'\n")
