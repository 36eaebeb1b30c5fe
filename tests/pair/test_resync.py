#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A 4 GiB disk, the secondary loses power, the guest changes 100 MiB in scattered pieces of 4 KiB: when the
secondary returns, at most 110 MiB go over the link, and colo says so."""
import re
import sys

import pairlab

CHANGED = 100 << 20
LIMIT = 110 << 20
# written where the guest's file system, which is smaller than the disk, is not
SCATTER = """
use strict; sysopen(my $d, "/dev/vda", 1) or die; open(my $r, "<", "/dev/urandom"); my %done; srand(SEED);
for (my $n = 0; $n < COUNT;) {
	my $block = FIRST + int(rand(BLOCKS));
	next if $done{$block}++;
	read($r, my $data, 4096) == 4096 or die;
	sysseek($d, $block * 4096, 0); syswrite($d, $data) == 4096 or die; $n++;
}
exec("sync");
"""


def scatter(pair, seed):
    first = (3 << 30) // 4096
    program = SCATTER.replace("SEED", str(seed)).replace("COUNT", str(CHANGED // 4096))
    program = program.replace("FIRST", str(first)).replace("BLOCKS", str((1 << 30) // 4096))
    pair.ssh(f"perl -e '{program}'", timeout=300)


def moved(pair, host):
    """What the daemon's log says of each sync's end, in bytes."""
    with open(f"/run/colo-lab/{pair.name}/{host}/colo.log", encoding="utf-8", errors="replace") as log:
        found = re.findall(r"the peer has the same content: .* ([0-9.]+) MiB moved", log.read())
    return [int(float(m) * (1 << 20)) for m in found]


def protected(pair):
    return all((pair.status(host) or {}).get("state") == "protected" for host in "ab")


def main():
    with pairlab.Pair("resync", "--disk-size", "4G", "--mem", "384M") as pair:
        before = len(moved(pair, "a"))
        assert before, "the first sync was not said to be over"
        pair.lab("kill", "b")
        pair.wait("going alone", lambda: pair.status("a")["state"] == "alone", 20)
        scatter(pair, 1)
        pair.lab("start", "b")
        pair.wait("protection", lambda: protected(pair), 180)
        now = moved(pair, "a")
        assert len(now) == before + 1, f"{len(now) - before} syncs were said to be over"
        print(f"100 MiB were changed, {now[-1] / (1 << 20):.1f} MiB moved")
        assert CHANGED <= now[-1] <= LIMIT, "more, or less, was moved than was to be"
        told = pair.status("a")["disks"][0]["sync"]["moved"]
        assert CHANGED <= told <= LIMIT, f"colo status says {told}"


if __name__ == "__main__":
    sys.exit(main())
