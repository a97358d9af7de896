# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run found, for people: the table on the terminal, the page with its plots."""
import html
import os
import re

import plot

NAMES = {"A": "A: ours", "B": "B", "floor": "floor"}
FLOORS = (("floor/eventfd", "floor: eventfd, two CPUs"),
          ("floor/eventfd-same", "floor: eventfd, one CPU"))
HOW = """Each row was measured for A and B in turn, with everything started anew in each round.
Shown is the median of the rounds' medians; "quartiles" are those of all samples. "A/B" is the
median of the ratios of neighbouring rounds, "noise" is how much one round of the same side
typically differs from its next: a difference smaller than that, or than 3 %, is called equal.
"CPU" is the CPU time of all processes concerned, per operation."""
VERDICTS = ("ahead", "behind", "equal")
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>ivshmem: %(title)s</title><style>
body { font-family: system-ui, Helvetica, Arial, sans-serif; max-width: 70em; margin: 2em auto;
       padding: 0 1em; color: #212529; line-height: 1.45 }
h2 { margin-top: 2em; border-bottom: 1px solid #dee2e6 }
table { border-collapse: collapse; font-size: 90%% }
td, th { padding: .25em .7em; text-align: right; border-bottom: 1px solid #e9ecef }
td:first-child, th:first-child { text-align: left }
.ahead { color: #2b8a3e } .behind { color: #c92a2a; font-weight: 600 }
svg { max-width: 100%%; height: auto; margin: .6em 0 } small { color: #495057 }
</style></head><body><h1>ivshmem: %(title)s</h1>
%(body)s</body></html>
"""


def parts(data):
    found = {}
    for row in data["rows"]:
        found.setdefault(row["part"], []).append(row)
    return found


def names(data):
    return dict(NAMES, **{side["key"]: "%s: %s" % (side["key"], side["name"])
                          for side in data["sides"]})


def cells(row):
    """Of the table: name, A, B or floor, quartiles of A, CPU of both, ratio, noise, verdict."""
    def side(key, value="median"):
        return plot.number(row[key].get(value)) if key in row else ""
    a = row.get("A", row.get("floor", {}))
    cpu = " / ".join(plot.number(row[key]["cpu_us"]) for key in "AB"
                     if "cpu_us" in row.get(key, {}))
    return [row["name"], row["unit"], side("A"), side("B"), side("floor"),
            "%s .. %s" % (plot.number(a["q1"]), plot.number(a["q3"]))
            if a["samples"] > 1 else "", cpu,
            "%.2f" % row["ratio"] if "ratio" in row else "",
            "%.0f %%" % (row["noise"] * 100) if row.get("noise") is not None else "",
            row.get("verdict", "")]


HEADER = ["", "unit", "A", "B", "floor", "quartiles (A)", "CPU us A / B", "A/B", "noise", "A is"]


def table_text(data):
    lines = []
    for part, rows in parts(data).items():
        grid = [[part.upper()] + HEADER[1:]] + [cells(row) for row in rows]
        keep = [i for i in range(len(HEADER)) if any(line[i] for line in grid[1:])]
        widths = [max(len(line[i]) for line in grid) for i in keep]
        lines.append("")
        for line in grid:
            lines.append("  ".join(line[i].ljust(w) if i == 0 else line[i].rjust(w)
                                   for i, w in zip(keep, widths)).rstrip())
    lines.append("")
    lines += ["not measured: %(what)s: %(reason)s" % skip for skip in data["skipped"]]
    lines += ["FAILED: %(what)s, side %(side)s: %(error)s" % fail for fail in data["failed"]]
    if data["noise"]:
        lines.append("noise of this run, one round against the next of the same side: %.0f %% in "
                     "the middle, %.0f %% for a quarter of the rows"
                     % (data["noise"]["median"] * 100, data["noise"]["q3"] * 100))
    return "\n".join(lines)


def table_html(rows):
    out = ["<table><tr>%s</tr>" % "".join("<th>%s</th>" % html.escape(h) for h in HEADER)]
    for row in rows:
        line = "".join("<td%s>%s</td>" % (
            ' class="%s"' % cell if cell in ("ahead", "behind") else "",
            html.escape(cell) + ("<br><small>%s</small>" % html.escape(row["note"])
                                 if i == 0 and "note" in row else ""))
            for i, cell in enumerate(cells(row)))
        out.append("<tr>%s</tr>" % line)
    return "\n".join(out + ["</table>"])


def remark(row):
    if "ratio" not in row:
        return ""
    verdict = row.get("verdict", "")
    return "A/B %.2f%s" % (row["ratio"], ", " + verdict if verdict in VERDICTS else "")


def bars(part, rows, shown, marks):
    """One chart for each unit of a part; round trips have the floors as marks."""
    for unit in dict.fromkeys(row["unit"] for row in rows):
        for better in ("lower", "higher", ""):
            group = [row for row in rows if row["unit"] == unit and row["better"] == better]
            if group:
                yield plot.bars(part, unit, better, [
                    (short(row["name"]), {key: (row[key]["median"], row[key]["q1"], row[key]["q3"])
                                          for key in ("A", "B", "floor") if key in row},
                     remark(row)) for row in group], shown,
                    marks if "round trip" in part.lower() else [])


def short(name):
    return name if len(name) <= 50 else name[:48] + "\u2026"


def curves(rows, shown):
    groups = {}
    for row in rows:
        if "curve" in row:
            for key in ("A", "B", "floor"):
                if key in row:
                    groups.setdefault(row["curve"], {}).setdefault(key, []).append(
                        (row["x"], row[key]["median"]))
    for title, sides in groups.items():
        if any(len(points) > 1 for points in sides.values()):
            x_name = AXES.get(next(row["part"] for row in rows), "")
            yield plot.curves(title, x_name, title.split(",")[0],
                              [(key, sorted(points)) for key, points in sides.items()], shown)


AXES = {"Several vCPUs ring at once": "vCPUs that ring", "Many peers (x vectors) at one device":
        "peers x vectors", "Server: joining and leaving": "clients"}


def histograms(rows, shown, marks):
    for row in rows:
        sides = {key: row[key]["kept"] for key in ("A", "B", "floor")
                 if "kept" in row.get(key, {})}
        if sides:
            yield plot.histogram(row["name"], row["unit"], sides, shown,
                                 [] if "floor" in sides else marks)


def plots(data):
    """(name of the file, part, svg), in the order of the page."""
    shown = names(data)
    measured = {row["row"]: row["floor"]["median"] for row in data["rows"] if "floor" in row}
    marks = [(measured[row], label) for row, label in FLOORS if row in measured]
    for part, rows in parts(data).items():
        stem = "-".join("".join(c if c.isalnum() else " " for c in part.lower()).split())
        for kind, found in (("bars", bars(part, rows, shown, marks)),
                            ("curve", curves(rows, shown)),
                            ("histogram", histograms(rows, shown, marks[:1]))):
            for i, image in enumerate(found):
                yield "%s-%s-%d.svg" % (stem, kind, i + 1), part, image


def environment(data):
    return "<table>%s</table>" % "".join(
        "<tr><td>%s</td><td style='text-align:left'>%s</td></tr>"
        % (html.escape(str(k)), html.escape(str(v))) for k, v in data["environment"].items())


def page(data, images):
    body = ["<p>%s</p>" % html.escape(HOW)]
    if data["quick"]:
        body.append("<p><b>A quick run: it shows that everything works, not how fast.</b></p>")
    for part, rows in parts(data).items():
        body += ["<h2>%s</h2>" % html.escape(part)]
        body += [image for _, of, image in images if of == part]
        body.append(table_html(rows))
    for title, entries in (("Not measured", data["skipped"]), ("Failed", data["failed"])):
        if entries:
            body.append("<h2>%s</h2><ul>%s</ul>" % (title, "".join(
                "<li>%s</li>" % html.escape(": ".join(entry.values())) for entry in entries)))
    body += ["<h2>Environment</h2>", environment(data)]
    return PAGE % {"title": "measured %s" % data["environment"]["date"], "body": "\n".join(body)}


# What docs/performance.rst shows.
PUBLISHED = ("doorbell-round-trip-bars-1", "doorbell-round-trip-histogram-1",
             "rings-and-interrupts-bars-1", "several-vcpus-ring-at-once-bars-1",
             "many-peers-x-vectors-at-one-device-curve-1", "server-joining-and-leaving-curve-1",
             "round-trip-while-a-client-misbehaves-bars-1", "memory-in-a-linux-guest-bars-1")


def remove_plots(folder):
    """Those of an earlier run."""
    for name in os.listdir(folder):
        if re.fullmatch(r"[a-z0-9-]+-(bars|curve|histogram)-\d+\.svg", name):
            os.unlink(os.path.join(folder, name))


def publish(data, folder):
    """Table, environment and chosen plots, for the manual."""
    remove_plots(folder)
    with open(os.path.join(folder, "table.txt"), "w", encoding="utf-8") as file:
        file.write(table_text(data).strip() + "\n")
    with open(os.path.join(folder, "environment.txt"), "w", encoding="utf-8") as file:
        file.write("".join("%-24s %s\n" % item for item in data["environment"].items()))
    for name, _, image in plots(data):
        if name[:-len(".svg")] in PUBLISHED:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(image)


def write(data, folder):
    """bench.html and the plots one by one; returns the page's path."""
    remove_plots(folder)
    images = list(plots(data))
    for name, _, image in images:
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(image)
    path = os.path.join(folder, "bench.html")
    with open(path, "w", encoding="utf-8") as file:
        file.write(page(data, images))
    return path
