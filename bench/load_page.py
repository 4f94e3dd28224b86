"""The figures of `load.py` as a page: a table, and lines over time."""

import html

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 190, 58, 26, 22
COLOURS = ["#0b7285", "#e8590c", "#868e96"]


def ticks(top):
    """Round values from 0 to just above `top`."""
    step = 10.0 ** len(str(int(top))) if top >= 1 else 1.0
    while top / step < 3:
        step /= 2 if str(step)[0] in "12" else 2.5
    count = int(-(-top // step)) or 1
    return [step * number for number in range(count + 1)]


def number(value):
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


def plot(title, unit, lines, x_unit="s"):
    """Lines of (x, y) by name, as SVG."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    right, scale = max(x for x, _ in points) or 1, ticks(max(y for _, y in points) or 1)
    across = lambda x: LEFT + (WIDTH - LEFT - 10) * x / right
    up = lambda y: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / scale[-1]
    drawn = [f'<text x="0" y="14" font-weight="600">{html.escape(title)}, {html.escape(unit)}</text>']
    for value in scale:
        drawn.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{up(value):.1f}" y2="{up(value):.1f}" stroke="#e9ecef"/><text x="{LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in (0, right / 2, right):
        drawn.append(f'<text x="{across(value):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{number(round(value))} {x_unit}</text>')
    for at, (name, line) in enumerate(lines.items()):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[at]}" stroke-width="1.5"/>')
        drawn.append(f'<text x="{WIDTH - 10 - 90 * (len(lines) - 1 - at)}" y="14" text-anchor="end" fill="{COLOURS[at]}">{html.escape(name)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">{"".join(drawn)}</svg>'


def of_run(name, found):
    """A section about one run."""
    if not found.get("complete"):
        return f"<h2>{name}</h2><p class=n>{html.escape(found['fault'])}</p>"
    lines, sent = found["lines"], found["simulated"]
    plots = [plot("Readings", "a second", {"due": lines["due"], "visible": lines["visible"]}), plot("Due and not yet visible", "readings", {"waiting": lines["waiting"]}),
             plot("Due to visible in SQL", "ms", {"p50": lines["p50"], "p99": lines["p99"]}), plot("Memory", "MiB resident", {"memory": lines["memory"]}), plot("CPU", "cores", {"cores": lines["cores"]})]
    counts = ", ".join(f"{key} {of:,}" for key, of in sent["counts"].items() if isinstance(of, int) and of)
    verdict = "".join(f"<tr><td>{html.escape(check['table'])}<td>{check['expected'] if check['expected'] is not None else ''}<td>{check['found']}"
                      f"<td class={'n' if check['differences'] else 'y'}>{html.escape(str(check['differences'])) if check['differences'] else 'as it must be'}<td>{html.escape(check['note'] or '')}</tr>" for check in found["verdict"])
    return f"""<h2>{name}</h2><p>{counts}; {sent['reconnects']:,} reconnects. The simulator's own lag: p99 {1e3 * sent['lag_seconds']['p99']:.1f} ms; due to acknowledged by the broker: p99 {1e3 * sent['latency_seconds']['p99']:.0f} ms.</p>
{''.join(plots)}<table><tr><th>table<th>rows at least<th>rows<th><th></tr>{verdict}</table>"""


def of_search(found):
    tries = found["tries"]
    told = [of for of in tries if of.get("complete")]
    chart = plot("Due to visible in SQL, by readings a second", "ms", {key: [(of["rate"], of["visible_ms"][key]) for of in told] for key in ("p50", "p99")}, "/s")
    rows = "".join(f"<tr><td>{of['rate']:,.0f}<td class={'y' if of['sustained'] else 'n'}>{'sustained' if of['sustained'] else 'not sustained'}"
                   + (f"<td>{of['visible_ms']['p50']:.0f}<td>{of['visible_ms']['p99']:.0f}<td>{1e3 * of['simulated']['lag_seconds']['p99']:.1f}<td>{of['cores']:.2f}<td>{of['peak_mib']:.0f}" if of.get("complete")
                      else f"<td colspan=5>{html.escape(of['fault'])}") + "</tr>" for of in tries)
    return f"""<h2>saturation</h2><p>The highest rate at which 99 of 100 readings were visible in SQL within a second, the simulator kept its schedule, and each table was what it must be: <b>{found['highest']:,.0f} readings a second</b>.</p>
{chart}<table><tr><th>readings a second<th><th>visible p50, ms<th>p99, ms<th>simulator's lag p99, ms<th>cores<th>peak, MiB</tr>{rows}</table>"""


def page(result):
    runs = result["scenarios"]
    told = {name: of for name, of in runs.items() if of.get("complete")}
    rows = "".join(f"<tr><td>{name}<td>{of['readings']:,}<td>{of['visible_ms']['p50']:.0f}<td>{of['visible_ms']['p99']:.0f}<td>{of['visible_ms']['max']:.0f}<td>{of['cores']:.2f}<td>{of['peak_mib']:.0f}"
                   f"<td class={'n' if any(check['differences'] for check in of['verdict']) else 'y'}>{'differs' if any(check['differences'] for check in of['verdict']) else 'as they must be'}</tr>" for name, of in told.items())
    sections = "".join(of_search(of) if name == "saturation" else of_run(name, of) for name, of in runs.items())
    known = ", ".join(f"{key} {value}" for key, value in result.items() if key != "scenarios")
    return f"""<!doctype html><meta charset="utf-8"><title>Tidegate under load</title>
<style>body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; color: #212529 }} table {{ border-collapse: collapse }}
td, th {{ text-align: left; padding: .3em .9em; border-bottom: 1px solid #dee2e6; vertical-align: top }} .y {{ color: #2b8a3e }} .n {{ color: #c92a2a }}
svg {{ margin: .6em 1.2em .6em 0; font: 12px system-ui, sans-serif }}</style>
<h1>Tidegate under load</h1><p>{html.escape(known)}. The simulated fleet, Mosquitto, the pipeline of <code>config/pipelines/demo.toml</code> and the questions share these cores. Latency counts from the moment a reading was due until SQL counted it.</p>
<table><tr><th>scenario<th>readings<th>visible p50, ms<th>p99, ms<th>longest, ms<th>cores<th>peak, MiB<th>tables</tr>{rows}</table>{sections}
"""
