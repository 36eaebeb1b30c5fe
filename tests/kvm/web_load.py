#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One HTTP connection that is kept, request after request: web_load.py ADDRESS FILE.

FILE says as JSON, after each answer: requests, the longest one in ms, connections, and what went wrong, which
ends it. An answer must be whole and always the same; only the server may end the connection, by saying so.
"""
import hashlib
import http.client
import json
import os
import sys
import time

LONGEST = 120  # an emulated machine is slow; a connection that breaks is noticed at once all the same


def note(path, account):
    with open(path + ".new", "w", encoding="ascii") as out:
        json.dump(account, out)
    os.rename(path + ".new", path)


def one(connection, wanted):
    """(hash of the answer, will the server close the connection)"""
    connection.request("GET", "/1k")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise ValueError(f"status {answer.status}")
    digest = hashlib.sha256(body).hexdigest()
    if wanted and digest != wanted:
        raise ValueError(f"an answer of {len(body)} bytes that is not the first one's")
    return digest, answer.will_close


def main():
    address, path = sys.argv[1:3]
    account = {"requests": 0, "longest_ms": 0, "connections": 0, "error": ""}
    connection = wanted = None
    while not account["error"]:
        begin = time.monotonic()
        try:
            if not connection:
                connection = http.client.HTTPConnection(address, timeout=LONGEST)
                connection.connect()
                account["connections"] += 1
            wanted, close = one(connection, wanted)
            account["requests"] += 1
            if close:
                connection.close()
                connection = None
        except (OSError, ValueError, http.client.HTTPException) as error:
            account["error"] = repr(error)
        account["longest_ms"] = max(account["longest_ms"], round(1000 * (time.monotonic() - begin)))
        note(path, account)
    sys.exit(1)


if __name__ == "__main__":
    main()
