# SPDX-License-Identifier: GPL-2.0-or-later
"""
Plots as SVG, by hand: bars(), histogram(), curves() return the text of one <svg> element.

Colours are of three kinds that differ in brightness too: A, B, floor.  Not responsible for what
is plotted.
"""
import html
import math

COLOURS = {"A": "#1864ab", "B": "#e8590c", "floor": "#868e96"}
INK, FAINT, GRID = "#212529", "#495057", "#dee2e6"
FONT = "font-family:system-ui,Helvetica,Arial,sans-serif"
WIDTH = 820
BINS = 60
BEYOND = 5              # percent of a histogram's samples, the slowest, that it does not show
MOST_POINTS = 6         # so many points of a curve get a tick of their own


def text(x, y, words, size=12, anchor="start", colour=INK, more=""):
    return ('<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" fill="%s"%s>%s</text>'
            % (x, y, size, anchor, colour, more, html.escape(str(words))))


def line(x1, y1, x2, y2, colour=GRID, width=1.0):
    return ('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f"/>'
            % (x1, y1, x2, y2, colour, width))


def rect(x, y, width, height, colour, opacity=1.0):
    return ('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" fill-opacity="%.2f"/>'
            % (x, y, max(width, 0.5), height, colour, opacity))


def svg(height, parts):
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" '
            'style="%s">%s\n</svg>\n' % (WIDTH, height, WIDTH, height, FONT, "\n".join(
                [rect(0, 0, WIDTH, height, "#ffffff")] + parts)))


def number(value):
    """Three digits that count, and thousands as people write them."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return "{:,.0f}".format(value)
    return "%.*f" % (max(0, 2 - math.floor(math.log10(size))) if size >= 0.001 else 6, value)


def short(value):
    """For axes: 20k rather than 20,000."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return "%g%s" % (round(value / limit, 2), letter)
    return "%g" % round(value, 4)


class Axis:
    """Values to places; logarithmic where values span more than a factor of 8."""

    def __init__(self, values, start, end, log=None, zero=False):
        values = [v for v in values if v is not None]
        low, high = min(values), max(values)
        self.log = low > 0 and high / low > 8 if log is None else log and low > 0
        if self.log:
            self.low, self.high = math.log10(low) - 0.05, math.log10(high) + 0.05
        else:
            margin = (high - low) * 0.05 or abs(high) * 0.05 or 1
            self.low, self.high = (0 if zero else low - margin), high + margin
        self.start, self.end = start, end

    def __call__(self, value):
        at = math.log10(max(value, 1e-12)) if self.log else value
        at = min(max(at, self.low), self.high)
        return self.start + (at - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self):
        if self.log:
            found = [m * 10 ** e for e in range(math.floor(self.low), math.ceil(self.high) + 1)
                     for m in (1, 2, 5)]
            found = [v for v in found if self.low <= math.log10(v) <= self.high]
            return found if len(found) <= 9 else [v for v in found if "1" == ("%e" % v)[0]]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        for factor in (1, 2, 5, 10):
            if (self.high - self.low) / (step * factor) <= 7:
                step *= factor
                break
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def legend(y, sides, right=WIDTH - 16):
    """From the right: coloured squares with names."""
    parts, x = [], right
    for key, name in reversed(list(sides.items())):
        x -= 7 * len(name) + 26
        parts += [rect(x, y - 10, 12, 12, COLOURS[key]), text(x + 17, y, name, 12, colour=FAINT)]
    return parts


def bars(title, unit, better, rows, names, marks=()):
    """
    One group per row: a bar to the median, a line from the first to the third quartile.
    rows: [(label, {side: (median, q1, q3)}, remark)]; marks: (value, label) of a floor.
    """
    left, right, top, thick = 330, WIDTH - 150, 74, 13
    used = [key for key in names if any(key in row[1] for row in rows)]
    axis = Axis([v for row in rows for m in row[1].values() for v in m] + [0], left, right,
                log=False, zero=True)
    spans = [max(m[0] for m in row[1].values()) for row in rows]
    if min(spans) > 0 and max(spans) / min(spans) > 30:
        axis = Axis([v for row in rows for m in row[1].values() for v in m if v > 0], left, right,
                    log=True)
    parts = [text(16, 24, title, 16, more=' font-weight="600"'),
             text(16, 44, "%s%s%s; bar: median, thin line: from quartile to quartile"
                  % (unit, better and ", %s is better" % better,
                     ", logarithmic" if axis.log else ""), 12, colour=FAINT)]
    parts += legend(62, {key: names[key] for key in used})
    y, body = top, []
    for label, sides, remark in rows:
        height = thick * len(sides) + 12
        body.append(text(left - 10, y + height / 2 - 2, label, 12, "end"))
        for i, (key, (median, q1, q3)) in enumerate(sides.items()):
            at = y + i * thick
            body.append(rect(left, at, axis(median) - left, thick - 2, COLOURS[key]))
            body.append(line(axis(q1), at + thick / 2 - 1, axis(q3), at + thick / 2 - 1, INK, 1.5))
            body.append(text(max(axis(median), axis(q3)) + 5, at + thick - 3.5, number(median), 11,
                             colour=FAINT))
        if remark:
            body.append(text(WIDTH - 12, y + height / 2 - 2, remark, 11, "end", FAINT))
        y += height
    for value in axis.ticks():
        parts.append(line(axis(value), top - 4, axis(value), y - 4))
        parts.append(text(axis(value), y + 12, short(value), 11, "middle", FAINT))
    bottom = y
    for value, label in marks:
        y += 15
        body.append(line(axis(value), top - 4, axis(value), bottom - 4, COLOURS["floor"], 2))
        body.append(text(axis(value), y + 13, label, 11, "middle", FAINT))
    return svg(y + 24, parts + body)


def histogram(title, unit, sides, names, marks=()):
    """sides: {side: sorted samples}; marks: (value, label) of a floor."""
    left, right, top, bottom = 50, WIDTH - 20, 70, 240
    pool = sorted(v for values in sides.values() for v in values)
    low, high = pool[len(pool) // 500], pool[int((len(pool) - 1) * (1 - BEYOND / 100))]
    for value, _ in marks:
        low, high = min(low, value), max(high, value)
    axis = Axis([low, high], left, right)
    shares = {key: counts(values, axis) for key, values in sides.items()}
    peak = max(max(share) for share in shares.values()) or 1
    parts = [text(16, 24, title, 15, more=' font-weight="600"'),
             text(16, 43, "share of round trips by %s%s; the slowest %d %% are beyond the right edge"
                  % (unit, ", logarithmic" if axis.log else "", BEYOND), 12, colour=FAINT)]
    parts += legend(60, {key: "%s: median %s, p99 %s" % (
        names[key], number(values[len(values) // 2]), number(values[len(values) * 99 // 100]))
                         for key, values in sides.items()})
    for value in axis.ticks():
        parts.append(line(axis(value), top, axis(value), bottom))
        parts.append(text(axis(value), bottom + 15, short(value), 11, "middle", FAINT))
    step = (right - left) / BINS
    for key, share in shares.items():
        points = [(left, bottom)]
        for i, part in enumerate(share):
            y = bottom - part / peak * (bottom - top)
            points += [(left + i * step, y), (left + (i + 1) * step, y)]
        points.append((right, bottom))
        parts.append('<path d="M%s" fill="%s" fill-opacity="0.25" stroke="%s" stroke-width="1.5"/>'
                     % (" L".join("%.1f,%.1f" % p for p in points), COLOURS[key], COLOURS[key]))
    for value, label in marks:
        parts.append(line(axis(value), top, axis(value), bottom, COLOURS["floor"], 2))
        parts.append(text(axis(value) + 5, top + 10, label, 11, colour=FAINT))
    parts.append(line(left, bottom, right, bottom, FAINT))
    parts.append(text(left - 6, top + 10, "%.0f %%" % (peak * 100), 11, "end", FAINT))
    return svg(bottom + 24, parts)


def counts(values, axis):
    """The share of the values in each bin."""
    found = [0] * BINS
    inside = 0
    for value in values:
        at = (axis(value) - axis.start) / (axis.end - axis.start)
        if at < 1:
            found[int(at * BINS)] += 1
            inside += 1
    return [n / max(len(values), 1) for n in found]


def apart(values, axis):
    """Without those whose label would touch the one before."""
    found = values[:1]
    for value in values[1:]:
        if axis(value) - axis(found[-1]) > 32:
            found.append(value)
    return found


def curves(title, x_name, y_name, lines, names):
    """lines: [(side, [(x, y)])]; both axes logarithmic where they span much."""
    left, right, top, bottom = 70, WIDTH - 130, 74, 330
    points = [p for _, found in lines for p in found]
    xs, ys = Axis([p[0] for p in points], left, right), Axis([p[1] for p in points], bottom, top)
    if not ys.log:
        ys = Axis([p[1] for p in points], bottom, top, log=False, zero=True)
    parts = [text(16, 24, title, 16, more=' font-weight="600"'),
             text(16, 44, "%s against %s" % (y_name, x_name) +
                  (", both logarithmic: a straight line of slope 1 is linear cost"
                   if xs.log and ys.log else ""), 12, colour=FAINT)]
    parts += legend(62, {key: names[key] for key in names if any(key == l[0] for l in lines)})
    few = apart(sorted({p[0] for p in points}), xs)
    for value in few if len(few) <= MOST_POINTS else xs.ticks():
        parts += [line(xs(value), top, xs(value), bottom),
                  text(xs(value), bottom + 16, short(value), 11, "middle", FAINT)]
    for value in ys.ticks():
        parts += [line(left, ys(value), right, ys(value)),
                  text(left - 6, ys(value) + 4, short(value), 11, "end", FAINT)]
    parts.append(text((left + right) / 2, bottom + 36, x_name, 12, "middle", FAINT))
    for key, found in lines:
        parts.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>' % (
            " ".join("%.1f,%.1f" % (xs(x), ys(y)) for x, y in found), COLOURS[key]))
        parts += ['<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>' % (xs(x), ys(y), COLOURS[key])
                  for x, y in found]
        last = found[-1]
        parts.append(text(xs(last[0]) + 8, ys(last[1]) + 4, number(last[1]), 11,
                          colour=COLOURS[key]))
    return svg(bottom + 48, parts)
