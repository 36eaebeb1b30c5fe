# SPDX-License-Identifier: GPL-2.0-or-later
"""Client work for `make demo` and `make bench`: one module per workload.

Everything here runs on the client's side of the network, in the client's namespace. A workload
keeps an Account (account.py) of what it asked for and what it got; the programs which merely drive
the load (wrk, pgbench) have their own reports parsed into the same Account.
"""
