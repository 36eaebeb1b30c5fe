#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One host after the other is brought to a colo that speaks a newer protocol; the guest serves, protected but for
each host's restart, and an echo session and a ledger live through all of it.

Both speak version 3 at first (--peer-version 3), as an older colo would. b, the secondary, is restarted with
the newest: the pair speaks 3. Then the roles are exchanged, and a is restarted: the pair speaks the newest.
"""
import os
import random
import sys

import pairlab
from test_power import OTHER, SEED
from test_return import Returns

NEWEST = 5
OLD = {"COLO_RUN_OPTIONS": "--peer-version 3"}


class Upgrade(Returns):
    def restart(self, host):
        """Stop what is the secondary, and start it as the newest."""
        print(f"    {host} stops, and comes back newer", flush=True)
        assert self.primary() != host
        self.pair.colo(host, "stop")
        self.pair.wait("going alone", lambda: (self.pair.status(OTHER[host]) or {}).get("state") == "alone", 20)
        self.start(host)
        self.protected()

    def switchover(self):
        primary = self.primary()
        print(f"    switchover, {primary} to {OTHER[primary]}", flush=True)
        self.pair.colo(primary, "switchover")
        self.taken_over(OTHER[primary])
        self.protected()
        assert self.primary() == OTHER[primary]

    def speaks(self, version):
        for host in OTHER:
            link = self.pair.status(host)["link"]
            assert link["version"] == version, f"{host} speaks {link['version']}, not {version}"
            # what came with version 4: it is said to a peer that knows it, and to no other one
            known = "protected" if version >= 4 else None
            self.pair.wait(f"{host} to hear the other's state ({known})",
                           lambda h=host: self.pair.status(h)["link"]["peer_state"] == known, 5)
        self.check_echo()
        self.check_ledger()
        print(f"  both speak version {version}", flush=True)

    def go_through(self):
        self.speaks(3)
        self.restart("b")
        self.speaks(3)
        self.check_ram()
        self.switchover()
        self.speaks(3)
        self.restart("a")
        self.speaks(NEWEST)
        self.check_ram()
        self.check()


def main():
    print("seed", SEED, flush=True)
    os.environ.update(OLD)
    with pairlab.Pair("upgrade", "--mem", "384M") as pair:
        del os.environ["COLO_RUN_OPTIONS"]
        upgrade = Upgrade(pair, random.Random(SEED))
        try:
            upgrade.start_all()
            upgrade.go_through()
        except BaseException:
            pair.tell()
            raise


if __name__ == "__main__":
    sys.exit(main())
