# SPDX-License-Identifier: GPL-2.0-or-later
"""bench/results.png: each load's ratio to the unprotected guest, by gnuplot."""
import subprocess

from loads import LOADS

SHOWN = ("twin", "colo", "checkpoint")
COLOURS = {"twin": "#9aa5b1", "colo": "#1f77b4", "checkpoint": "#e6a23c"}
TITLES = {"twin": "two unprotected guests", "colo": "colo",
          "checkpoint": "continuous checkpoints"}


def data_block(runs, vcpus, modes):
    """Rows of `"load" ratio...`; a missing ratio is NaN."""
    ratios = {(run["load"], run["mode"]): run["ratio_native"] for run in runs
              if run["vcpus"] == vcpus}
    lines = []
    for load in LOADS:
        row = [ratios.get((load.name, mode)) for mode in modes]
        if any(value is not None for value in row):
            cells = ["NaN" if value is None else f"{value:.3f}" for value in row]
            lines.append(f'"{load.title}" {" ".join(cells)}')
    return lines


def script(runs, path, vcpus):
    """The gnuplot program, None when there is nothing to draw."""
    present = {run["mode"] for run in runs if run["vcpus"] == vcpus}
    modes = [mode for mode in SHOWN if mode in present]
    rows = data_block(runs, vcpus, modes)
    if not rows or not modes:
        return None
    plots = ", ".join(f"$data using {column}:xtic(1) title '{TITLES[mode]}' lc rgb '{COLOURS[mode]}'"
                      for column, mode in enumerate(modes, 2))
    return "\n".join([
        f"set terminal pngcairo size {240 + 64 * len(rows)},680 font 'sans,11' noenhanced",
        f"set output '{path}'",
        f"set title 'What is left of the unprotected guest ({vcpus} vCPU)'",
        "set style data histogram", "set style histogram clustered gap 1",
        "set style fill solid border rgb 'white'", "set boxwidth 0.95",
        "set ylabel 'ratio to native (1 = as good)'", "set yrange [0:1.2]", "set ytics 0.2",
        "set grid ytics lc rgb '#dddddd'", "set border 3", "set xtics rotate by -35 nomirror",
        "set ytics nomirror", "set key outside top center horizontal", "set rmargin 8",
        "set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead lc rgb '#555555' dt 2",
        "$data << EOD", *rows, "EOD", f"plot {plots}", ""])


def draw(runs, path, vcpus):
    """Draw the chart; returns an error text or None."""
    program = script(runs, path, vcpus)
    if program is None:
        return "nothing to draw"
    try:
        done = subprocess.run(["gnuplot"], input=program, text=True, capture_output=True,
                              timeout=60, check=False)
    except OSError as err:
        return f"gnuplot: {err}"
    return f"gnuplot: {done.stderr.strip()}" if done.returncode else None
