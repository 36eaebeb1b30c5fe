# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a lab: one JSON file in /run/colo-lab/NAME, written whole at each change."""
import fcntl
import json
import os
import re
import shutil

from .errors import LabError

RUN_ROOT = "/run/colo-lab"
DISK_ROOT = "/var/tmp/colo-lab"
HOSTS = ("a", "b", "client", "arbiter")
GUEST_HOSTS = ("a", "b")


def check_name(name):
    """A name goes into file names and namespace names."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", name):
        raise LabError(f"'{name}' is no name for a lab: letters, digits, - and _, at most 21")
    return name


class Lab:
    """A lab by its name, and what its state file says. data is {} when it is not up."""

    def __init__(self, name):
        self.name = check_name(name)
        self.run_dir = os.path.join(RUN_ROOT, name)
        self.disk_dir = os.path.join(DISK_ROOT, name)
        self.file = os.path.join(self.run_dir, "state.json")
        self.data = self._read()
        self._lock = None

    def _read(self):
        try:
            with open(self.file, encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {}
        except ValueError as err:
            raise LabError(f"{self.file} is damaged ({err}); `lab down` clears it away") from err

    @property
    def exists(self):
        """Has `up` begun, and `down` not ended?"""
        return os.path.isdir(self.run_dir)

    def create(self):
        """Make the directories; the state file follows with the first save()."""
        for host in GUEST_HOSTS:
            os.makedirs(os.path.join(self.run_dir, host), exist_ok=True)
            os.makedirs(os.path.join(self.disk_dir, host), exist_ok=True)

    def save(self):
        """Write the state, so that a crash leaves either the old or the new one."""
        temporary = self.file + ".new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.data, file, indent=1)
        os.rename(temporary, self.file)

    def remove(self):
        """Forget the lab, its disks included."""
        for directory in (self.disk_dir, self.run_dir):
            shutil.rmtree(directory, ignore_errors=True)
        for root in (DISK_ROOT, RUN_ROOT):
            try:
                os.rmdir(root)
            except OSError:
                pass    # another lab lives there

    def lock(self):
        """Hold off every other changing verb on this lab until this process ends."""
        os.makedirs(self.run_dir, exist_ok=True)
        self._lock = os.open(self.run_dir, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise LabError(f"another lab command is changing '{self.name}' right now") from err
        try:
            self.data = self._read()
        except LabError:
            self.data = {}

    def require(self):
        """Say so when the lab is not up."""
        if not self.data:
            raise LabError(f"no lab '{self.name}' is up (`lab up` makes one)")
        return self

    def namespace(self, host):
        """Name of the network namespace of @host (or of "lan", the switch)."""
        return f"colo-{self.name}-{host}"

    def host_file(self, host, name):
        """Path of a file of host a or b in the run directory."""
        return os.path.join(self.run_dir, host, name)

    def disk(self, host):
        """Path of the disk of host a or b."""
        return os.path.join(self.disk_dir, host, "disk.raw")


def all_labs():
    """Names of the labs that are up."""
    try:
        return sorted(os.listdir(RUN_ROOT))
    except FileNotFoundError:
        return []
