# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a program next to the asynchronous workloads, never longer than allowed."""
import asyncio


class ProgramError(Exception):
    """The program could not be run, or had to be stopped."""


async def run(args, seconds):
    """Run @args; returns (exit status, stdout, stderr)."""
    try:
        child = await asyncio.create_subprocess_exec(
            *args, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE)
    except OSError as err:
        raise ProgramError(f"{args[0]}: {err}") from err
    try:
        async with asyncio.timeout(seconds):
            out, err = await child.communicate()
    except TimeoutError as late:
        raise ProgramError(f"{args[0]} had not ended after {seconds} s") from late
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
