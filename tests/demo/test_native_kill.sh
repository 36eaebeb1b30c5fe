#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Negative control of `make demo`: a guest that nobody protects loses its QEMU in the middle of the load.
# The demonstration must say so: exit status 1, every workload harmed, every commit missing.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

timeout 200 "$root/demo/demo" --mode native --kill vm --duration 8 --no-build \
	--name demo-control --json "$out/demo.json"
status=$?
[ $status = 1 ] || { echo "exit status $status, 1 expected"; exit 1; }

/usr/bin/python3 - "$out/demo.json" <<'EOF'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    report = json.load(file)
unharmed = [work["name"] for work in report["workloads"] if not work["failures"]]
whole = [work["name"] for work in report["workloads"] if work["open_connection"] and not work["broken"]]
ledger = report["ledger"]
if unharmed or whole:
    sys.exit(f"not noticed: no failure in {unharmed}, no broken connection in {whole}")
if not ledger["acknowledged"] or ledger["missing"] != ledger["acknowledged"]:
    sys.exit(f"ledger {ledger}: all acknowledged commits should be missing")
print("every workload noticed")
EOF
