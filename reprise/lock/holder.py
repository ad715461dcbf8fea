"""Who holds a lock: the record that a refused command reads."""

from __future__ import annotations

import datetime
import getpass
import json
import os
import secrets
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from reprise.digest import compute_digest


@dataclass(frozen=True)
class LockHolder:
    """A process that holds a lock."""

    command: str
    user: str
    host: str
    pid: int
    machine: str  # digest of the boot and of the process namespace: within it, `pid` names one process
    since: str  # ISO 8601, UTC
    token: str  # of this one lock

    @classmethod
    def from_process(cls) -> LockHolder:
        """Describe this process."""
        return cls(
            command=_get_command(),
            user=_get_user(),
            host=socket.gethostname(),
            pid=os.getpid(),
            machine=_get_machine(),
            since=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            token=secrets.token_hex(8),
        )

    @classmethod
    def decode(cls, data: bytes) -> LockHolder | None:
        """Read a record; None if it is none of ours."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None

    def encode(self) -> bytes:
        """Return the record as JSON."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    def describe(self) -> str:
        """Name the process and say since when it holds the lock."""
        return f"{self.command} of {self.user} on {self.host}, process {self.pid}, since {self.since}"

    def has_ended(self) -> bool:
        """Whether the process is of this machine and runs no more."""
        if self.machine != _get_machine() or not self.machine:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it is another user's
            return False
        return False


def _get_command() -> str:
    """Name the command without its arguments, which may hold what nobody else should read."""
    program = Path(sys.argv[0] or "python").stem
    return f"{program} {sys.argv[1]}" if program == "reprise" and len(sys.argv) > 1 else program


def _get_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return str(os.getuid())


def _get_machine() -> str:
    """Tell machines and containers apart, also those with one host name; empty if that is impossible."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return compute_digest(boot, Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
