# SPDX-License-Identifier: MIT
"""A chart of lines as SVG: both axes logarithmic, one colour a series."""
import math

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 340, 70, 16, 200, 48
COLOURS = ["#888888", "#1f77b4", "#2ca02c", "#9467bd", "#bcbd22", "#17becf", "#d62728"]
FLOOR = 1e-4  # zeros are drawn here


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def lines(x_title, y_title, series):
    points = [(x, max(FLOOR, y)) for _, values in series for x, y in values]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = 10 ** math.floor(math.log10(min(y for _, y in points))), 10 ** math.ceil(math.log10(max(y for _, y in points)))
    if high_x == low_x:
        low_x, high_x = low_x / 1.5, high_x * 1.5
    if high_y == low_y:
        high_y *= 10

    def place(value, low, high, start, length):
        return start + length * math.log(value / low) / math.log(high / low)

    def x_of(value):
        return place(value, low_x, high_x, LEFT + 10, WIDTH - LEFT - RIGHT - 20)

    def y_of(value):
        return place(max(FLOOR, value), low_y, high_y, HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    tick = low_y
    while tick <= high_y * 1.001:
        y = y_of(tick)
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/><text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        tick *= 10
    for x in sorted({x for x, _ in points}):
        out.append(f'<text x="{x_of(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_title)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{escape(y_title)}</text>')
    for i, (name, values) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        path = "".join(f"{'L' if n else 'M'}{x_of(x):.1f} {y_of(y):.1f}" for n, (x, y) in enumerate(values))
        out.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>' for x, y in values]
        y = TOP + 14 + 18 * i
        out.append(f'<path d="M{WIDTH - RIGHT + 12} {y - 4}h18" stroke="{colour}" stroke-width="2"/><text x="{WIDTH - RIGHT + 36}" y="{y}">{escape(name)}</text>')
    return "\n".join(out + ["</svg>", ""])
