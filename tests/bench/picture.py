# Unix SMB/CIFS implementation.
#
# The picture of the benchmark.
#
# Copyright (C) The durable_state developers 2026
#
# This program is free software; you can redistribute it and/or modify
# it under the terms of the GNU General Public License as published by
# the Free Software Foundation; either version 3 of the License, or
# (at your option) any later version.
#
# This program is distributed in the hope that it will be useful,
# but WITHOUT ANY WARRANTY; without even the implied warranty of
# MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
# GNU General Public License for more details.
#
# You should have received a copy of the GNU General Public License
# along with this program.  If not, see <http://www.gnu.org/licenses/>.
#

"""Throughput over time as SVG, one panel below the other."""

from xml.sax.saxutils import escape

WIDTH = 960
PANEL_HEIGHT = 190
LEFT, RIGHT, TOP, GAP, BOTTOM = 84, 28, 78, 62, 58
FONT = "font-family=\"'DejaVu Sans', Helvetica, Arial, sans-serif\""
INK, FAINT, GRID = "#24292f", "#57606a", "#d8dee4"


def nice_step(span, about):
    """1, 2 or 5 times a power of ten, so that there are `about` steps."""
    step = 1.0
    while step * about < span:
        step *= 10
    while step * about > span * 10:
        step /= 10
    for part in (0.1, 0.2, 0.5, 1.0):
        if step * part * about >= span:
            return step * part
    return step


def label(value):
    return f"{value:.10g}"


def text(x, y, what, size=12, anchor="start", colour=INK, weight="normal",
         turn=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" '
            f'text-anchor="{anchor}" fill="{colour}" '
            f'font-weight="{weight}"{turn}>{escape(what)}</text>')


def panel(top, series, first, last, highest):
    """series: dict with title, note, colour, width, bins, gap."""
    right = WIDTH - RIGHT
    bottom = top + PANEL_HEIGHT

    def x(seconds):
        return LEFT + (seconds - first) / (last - first) * (right - LEFT)

    def y(value):
        return bottom - value / highest * PANEL_HEIGHT

    out = [text(LEFT, top - 12, series["title"], 14, weight="bold"),
           text(right, top - 12, series["note"], 13, "end", FAINT)]
    begin, end = series["gap"]
    out.append(f'<rect x="{x(begin):.1f}" y="{top}" '
               f'width="{max(x(min(end, last)) - x(begin), 1):.1f}" '
               f'height="{PANEL_HEIGHT}" fill="{series["colour"]}" '
               'opacity="0.13"/>')
    step = nice_step(highest, 4)
    value = 0.0
    while value <= highest * 1.001:
        out.append(f'<line x1="{LEFT}" x2="{right}" y1="{y(value):.1f}" '
                   f'y2="{y(value):.1f}" stroke="{GRID}"/>')
        out.append(text(LEFT - 9, y(value) + 4, label(value), 12, "end",
                        FAINT))
        value += step
    # bins as steps: what was measured, nothing drawn smooth
    area = [f"M{x(series['bins'][0][0]):.1f} {bottom}"]
    for start, value in series["bins"]:
        area.append(f"V{y(value):.1f}H{x(start + series['width']):.1f}")
    area.append(f"V{bottom}Z")
    path = "".join(area)
    out.append(f'<path d="{path}" fill="{series["colour"]}" '
               f'fill-opacity="0.35" stroke="{series["colour"]}" '
               'stroke-width="0.8" stroke-linejoin="round"/>')
    out.append(f'<line x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" '
               f'stroke="{INK}"/>')
    middle = top + PANEL_HEIGHT / 2
    out.append(text(26, middle, "MiB per second", 12, "middle", FAINT,
                    turn=f' transform="rotate(-90 26 {middle})"'))
    return out, x


def draw(path, title, subtitle, panels, first, last):
    """bins: (start in seconds, MiB/s), all within first and last."""
    highest = max(v for p in panels for _, v in p["bins"]) * 1.08 or 1
    height = (TOP + len(panels) * PANEL_HEIGHT + (len(panels) - 1) * GAP +
              BOTTOM + 26)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
           f'height="{height}" viewBox="0 0 {WIDTH} {height}" {FONT}>',
           f"<title>{escape(title)}</title>",
           f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
           text(LEFT, 26, title, 17, weight="bold"),
           text(LEFT, 46, subtitle, 12, colour=FAINT)]
    top = TOP + 12
    for one in panels:
        drawn, x = panel(top, one, first, last, highest)
        out += drawn
        step = nice_step(last - first, 10)
        tick = round(first / step) * step
        while tick <= last + step / 1000:
            if tick >= first - step / 1000:
                place = x(tick)
                base = top + PANEL_HEIGHT
                out.append(f'<line x1="{place:.1f}" x2="{place:.1f}" '
                           f'y1="{base}" y2="{base + 5}" stroke="{INK}"/>')
                out.append(text(place, base + 19, label(round(tick, 6)), 12,
                                "middle", FAINT))
            tick += step
        top += PANEL_HEIGHT + GAP
    out.append(text((LEFT + WIDTH - RIGHT) / 2, height - 18,
                    "seconds from the last answer of the old smbd", 12,
                    "middle", FAINT))
    out.append("</svg>")
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")
