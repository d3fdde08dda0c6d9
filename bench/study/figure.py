# SPDX-License-Identifier: MIT
"""A chart of points as SVG: the vertical axis is logarithmic, each point has its name beside it."""
import math

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 380, 70, 16, 30, 48


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def points(x_title, y_title, values):
    """values: [(name, x, y, emphasised)]; y is drawn no lower than a tenth of the second lowest."""
    ys = sorted(y for _, _, y, _ in values)
    floor = max(ys[min(1, len(ys) - 1)] / 10, 1e-6)
    low_x, high_x = min(x for _, x, _, _ in values), max(x for _, x, _, _ in values)
    margin = 0.06 * (high_x - low_x) or 0.01
    low_x, high_x = low_x - margin, high_x + 4 * margin
    low_y, high_y = max(ys[0], floor) / 1.3, ys[-1] * 1.3

    def x_of(x):
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - low_x) / (high_x - low_x)

    def y_of(y):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(max(y, floor) / low_y) / math.log(high_y / low_y)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for power in range(math.floor(math.log10(low_y)), math.ceil(math.log10(high_y)) + 1):
        for tick in (10 ** power, 2 * 10 ** power, 5 * 10 ** power):
            if low_y <= tick <= high_y:
                y = y_of(tick)
                out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/><text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    step = 10 ** math.floor(math.log10(high_x - low_x))
    step = next(s for s in (step / 5, step / 2, step) if (high_x - low_x) / s <= 10)
    for i in range(math.ceil(low_x / step), math.floor(high_x / step) + 1):
        x = x_of(i * step)
        out.append(f'<path d="M{x:.1f} {HEIGHT - BOTTOM}v5" stroke="black"/><text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{i * step:.4g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{escape(y_title)}</text>')
    for name, x, y, emphasised in values:
        colour = "#d62728" if emphasised else "#1f77b4"
        out.append(f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4" fill="{colour}"/>'
                   f'<text x="{x_of(x) + 7:.1f}" y="{y_of(y) + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    return "\n".join(out + ["</svg>", ""])
