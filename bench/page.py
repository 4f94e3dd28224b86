"""The figures of `report.py` as a page: what is to be reached, what was, and what others do beside it."""

import html


def rows(found):
    """Work, aim, measured, whether it is reached, and what the others do."""
    w1, without, million, w2, w3, mqtt = (found[key] for key in ("w1", "w1_without", "w1_million", "w2", "w3", "mqtt"))
    cpu = lambda of: f"{of['cpu_per_million']:.2f} CPU s/M"
    others = lambda of: ", ".join(f"{who} {cpu(figures)} ({figures['cpu_per_million'] / of['tidegate']['cpu_per_million']:.1f}×)" for who, figures in of.items() if who != "tidegate")
    peaks = lambda of: ", ".join(f"{who} {figures['peak_mib']:.0f} MiB" for who, figures in of.items() if who != "tidegate")
    mine = w1["tidegate"]
    yield "W1: windows of 10 s over a file, durable", "≤ 0.45 CPU s/M", cpu(mine), mine["cpu_per_million"] <= 0.45, others(w1)
    if "flink" in w1:
        speed = mine["readings_per_second"] / w1["flink"]["readings_per_second"]
        yield "W1, readings a second beside Flink", "≥ 10×", f"{speed:.1f}× ({mine['readings_per_second'] / 1e6:.2f} M/s)", speed >= 10, f"flink {w1['flink']['readings_per_second'] / 1e6:.2f} M/s"
    yield "W1, peak memory", "≤ 200 MiB", f"{mine['peak_mib']:.0f} MiB", mine["peak_mib"] <= 200, peaks(w1)
    yield "W1 in one epoch", "≤ 0.36 CPU s/M", cpu(without), without["cpu_per_million"] <= 0.36, f"duckdb {cpu(w1['duckdb'])}"
    mine = million["tidegate"]
    yield "W1, a million devices", "≤ 0.65 CPU s/M", cpu(mine), mine["cpu_per_million"] <= 0.65, others(million)
    yield "W1, a million devices, peak memory", "≤ 600 MiB", f"{mine['peak_mib']:.0f} MiB", mine["peak_mib"] <= 600, peaks(million)
    ratio = w2["tidegate"]["cpu_per_million"] / w1["tidegate"]["cpu_per_million"]
    yield "W2: 60 s every 10 s", "≤ 1.3 × W1", f"{ratio:.2f} × W1, {cpu(w2['tidegate'])}", ratio <= 1.3, others(w2)
    yield "W3: dedupe, enrich, convert, sorted Parquet by day", "≤ 1.2 CPU s/M", cpu(w3["tidegate"]), w3["tidegate"]["cpu_per_million"] <= 1.2, others(w3)
    share = mqtt["durable_per_second"] / mqtt["bare_per_second"]
    yield ("MQTT QoS 1 through Mosquitto, durable acks", "≥ 80 % of a bare subscriber", f"{share:.0%} ({mqtt['durable_per_second'] / 1e3:.0f} k/s)", share >= 0.8,
           f"bare {mqtt['bare_per_second'] / 1e3:.0f} k/s")
    visible = mqtt["visible_p50_ms"] <= 20 and mqtt["visible_p99_ms"] <= 100
    yield (f"publish to visible in SQL at {mqtt['rate'] / 1e3:.0f} k/s, half of what is sustained", "p50 ≤ 20 ms, p99 ≤ 100 ms", f"p50 {mqtt['visible_p50_ms']:.1f} ms, p99 {mqtt['visible_p99_ms']:.1f} ms", visible, "")
    yield ("receipt to durable at the same rate", "p99 ≤ 25 ms + fsync p99", f"p99 {mqtt['acks_p99_ms']:.1f} ms, fsync {mqtt['fsync_p99_ms']:.1f} ms",
           mqtt["acks_p99_ms"] <= 25 + mqtt["fsync_p99_ms"], "upper bounds of buckets")
    start = found["start"]
    yield "start to ready, empty", "≤ 0.3 s", f"{start['empty_seconds']:.2f} s", start["empty_seconds"] <= 0.3, ""
    worst = max(start["stopped_seconds"], start["killed_seconds"])
    yield "start to ready, windows of a million devices", "≤ 3 s", f"{worst:.2f} s", worst <= 3, ""
    for kind, aim in (("floats", 6.8), ("decimals", 5.2)):
        if "bytes" in found:
            size = found["bytes"][kind]
            yield f"bytes a reading in cold files, measured values as {kind}", f"≤ {aim}", f"{size:.2f}", size <= aim, "reference reading of 9 columns, 5,000 devices × 800"
    ratio = found["durability"]["speed_ratio"]
    yield "exactly-once and fsync against neither", "≥ 85 % of the throughput", f"{ratio:.0%}", ratio >= 0.85, ""
    ratio = found["cores"]["two"] / found["cores"]["one"]
    yield "throughput from one to two cores", "≥ 1.8×", f"{ratio:.2f}×", ratio >= 1.8, f"{found['cores']['one'] / 1e6:.2f} and {found['cores']['two'] / 1e6:.2f} M/s"


def bars(title, of, key, unit, digits):
    """Horizontal bars as SVG."""
    longest = max(figures[key] for figures in of.values())
    lines = []
    for number, (who, figures) in enumerate(of.items()):
        y, width = 26 + number * 24, 420 * figures[key] / longest
        colour = "#0b7285" if who == "tidegate" else "#adb5bd"
        lines.append(f'<text x="92" y="{y + 13}" text-anchor="end">{who}</text><rect x="100" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>'
                     f'<text x="{106 + width:.1f}" y="{y + 13}">{figures[key]:.{digits}f} {unit}</text>')
    height = 34 + 24 * len(of)
    return f'<svg viewBox="0 0 640 {height}" width="640" height="{height}" role="img"><text x="0" y="14" font-weight="600">{html.escape(title)}</text>{"".join(lines)}</svg>'


def page(result):
    found = result["figures"]
    lines = "".join(f"<tr><td>{html.escape(work)}</td><td>{html.escape(aim)}</td><td>{html.escape(figure)}</td><td class={'y' if ok else 'n'}>{'reached' if ok else 'missed'}</td>"
                    f"<td>{html.escape(beside)}</td></tr>" for work, aim, figure, ok, beside in rows(found))
    charts = "".join(bars(title, found[key], "cpu_per_million", "CPU s per million readings", 2)
                     for key, title in (("w1", "W1, 10,000 devices"), ("w1_million", "W1, a million devices"), ("w2", "W2, hopping windows"), ("w3", "W3, to sorted Parquet")))
    charts += bars("W1, peak memory", found["w1"], "peak_mib", "MiB", 0)
    profiles = "".join(f"<h3>{html.escape(name)}</h3><pre>{html.escape(chr(10).join(lines))}</pre>" for name, lines in found["profiles"].items())
    facts = ", ".join(f"{key} {value}" for key, value in result.items() if key != "figures")
    return f"""<!doctype html><meta charset="utf-8"><title>Tidegate, measured</title>
<style>body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; color: #212529 }} table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; padding: .35em .8em; border-bottom: 1px solid #dee2e6; vertical-align: top }} .y {{ color: #2b8a3e }} .n {{ color: #c92a2a }}
svg {{ display: block; margin: 1.5em 0; font: 13px system-ui, sans-serif }}</style>
<h1>Tidegate, measured</h1><p>{html.escape(facts)}. CPU seconds are user + system of all processes, per million readings. Behind a peer's figure stands how many times ours it is.</p>
<table><tr><th>work<th>aim<th>measured<th><th>beside it</tr>{lines}</table>{charts}<h2>Where the time goes</h2><p>By thread and function.</p>{profiles}
"""
