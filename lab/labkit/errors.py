# SPDX-License-Identifier: GPL-2.0-or-later
"""The one exception whose text is shown to the user as it is."""


class LabError(Exception):
    """Something a person can act on, in one line (more lines: the tail of a log)."""
