# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of lab/lab: cli -> verbs -> native, protect -> guest, net, proc -> state."""
