#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One TCP connection to the guest's echo service, a line every 20 ms, for as long as it is let run:
echo_load.py ADDRESS FILE. FILE says, once a second, as JSON: answers, gaps (ms, those over 100), and what went
wrong, which ends it."""
import json
import os
import socket
import sys
import time

PORT, INTERVAL, LONGEST = 7, 0.02, 20


def note(path, account):
    with open(path + ".new", "w", encoding="ascii") as out:
        json.dump(account, out)
    os.rename(path + ".new", path)


def exchange(connection, stream, n):
    line = b"%08d %08x\n" % (n, n * 2654435761 % 2 ** 32)
    connection.sendall(line)
    back = stream.readline()
    return "" if back == line else f"line {n} came back as {back!r}"


def main():
    address, path = sys.argv[1:3]
    account = {"answers": 0, "gaps": [], "error": ""}
    connection = socket.create_connection((address, PORT), LONGEST)
    stream = connection.makefile("rb")
    noted = 0.0
    while not account["error"]:
        begin = time.monotonic()
        try:
            account["error"] = exchange(connection, stream, account["answers"])
        except OSError as err:
            account["error"] = repr(err)
        took = time.monotonic() - begin
        account["answers"] += not account["error"]
        if took > 0.1:
            account["gaps"].append(round(took * 1000))
        if begin - noted > 1 or account["error"]:
            note(path, account)
            noted = begin
        time.sleep(max(0, INTERVAL - took))
    sys.exit(1)


if __name__ == "__main__":
    main()
