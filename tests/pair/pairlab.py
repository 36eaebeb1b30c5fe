# SPDX-License-Identifier: GPL-2.0-or-later
"""A protected pair in a lab of its own, for tests: always cleared away."""
import json
import os
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
LAB = os.path.join(ROOT, "lab", "lab")
COLO = os.environ.get("COLO_BIN") or os.path.join(ROOT, "build", "colo")

TALK = ("import socket,sys; s=socket.create_connection((sys.argv[1],int(sys.argv[2])),20)\n"
        "s.sendall(sys.argv[3].encode()); s.shutdown(1); print(s.makefile('rb').read().decode())")


class Pair:
    def __init__(self, name, *up):
        self.name, self.loads = name, []
        self.up = ["--mode", "colo", *up]

    def __enter__(self):
        try:
            print(self.lab("up", *self.up, timeout=300), end="")
            self.ip = self.lab("ip").split()[0]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for load in self.loads:
            load.kill()
            load.wait()
        subprocess.run([LAB, "down", "--name", self.name], timeout=120, check=False)

    def lab(self, verb, *args, timeout=60, check=True):
        done = subprocess.run([LAB, verb, "--name", self.name, *args], capture_output=True, text=True,
                              timeout=timeout, check=False)
        if check and done.returncode:
            raise AssertionError(f"lab {verb} {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout

    def client(self, *command, timeout=60, check=True):
        return self.lab("exec", "client", "--", *command, timeout=timeout, check=check)

    def load(self, *command):
        """Start a load on the client."""
        self.loads.append(subprocess.Popen([LAB, "exec", "--name", self.name, "client", "--", *command],
                                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                           stderr=subprocess.STDOUT, text=True))
        return self.loads[-1]

    def talk(self, port, text):
        return self.client("/usr/bin/python3", "-c", TALK, self.ip, str(port), text)

    def ssh(self, command, timeout=60):
        return self.lab("ssh", command, timeout=timeout)

    def status(self, host):
        return json.loads(self.lab("status", "--json"))[host]

    def tell(self, lines=30):
        """What the daemons said last, for whoever reads of a failure."""
        for host in "ab":
            path = f"/run/colo-lab/{self.name}/{host}/colo.log"
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as log:
                    print(f"--- {host}", *log.read().splitlines()[-lines:], sep="\n", flush=True)

    def pids(self, host, program):
        """Processes of a host that run a program."""
        out = self.lab("exec", host, "--", "/bin/sh", "-c",
                       'for p in /proc/[0-9]*; do echo "${p#/proc/} $(readlink $p/ns/net) $(cat $p/comm)"; done 2>/dev/null; '
                       'echo me $(readlink /proc/self/ns/net)')
        lines = [line.split() for line in out.splitlines()]
        mine = [line[1] for line in lines if line[:1] == ["me"]][0]
        return [int(line[0]) for line in lines if len(line) == 3 and line[1:] == [mine, program]]

    def colo(self, host, *args):
        """Run build/colo on a host of the lab, with the lab's configuration."""
        config = f"/run/colo-lab/{self.name}/colo.conf"
        return self.lab("exec", host, "--", COLO, *args, "--node", host, config)

    def wait(self, what, test, limit):
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            value = test()
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"{what}: not within {limit} s")
