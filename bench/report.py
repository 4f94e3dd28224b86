"""One page with what Tidegate is to reach, what it does on this machine, and what others do beside it: `make bench`.

    measure ─► figures (bench/results/<day>-<commit>.json) ─► page.py (the same name, .html)

What runs are the programs that a person would run: `bench file|mqtt|start|durability` and `bench/peers/files.py`, one after the other. CPU seconds are user + system of
a process and all that it started. Results of a peer are compared with ours value by value before its figures stand beside them.
"""

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import duckdb

from machine import facts
from page import page, rows

HERE = os.path.dirname(os.path.abspath(__file__))
PR_SET_CHILD_SUBREAPER = 36


def say(text):
    print(text, flush=True)


def measured(command):
    """CPU seconds, seconds and peak bytes of a command and all that it starts, and its output."""
    # Orphans become ours, so that none of their CPU time is missing.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start = time.monotonic()
    log = open(f"{ARGUMENTS.folder}/command.log", "w+")
    child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds, all_used = time.monotonic() - start, [used]
    while True:
        try:
            all_used.append(os.wait4(-1, 0)[2])
        except ChildProcessError:
            break
    log.seek(0)
    text = log.read()
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: ended with {child.returncode}\n{text[-2000:]}")
    cpu = sum(of.ru_utime + of.ru_stime for of in all_used)
    return {"cpu": cpu, "seconds": seconds, "peak_bytes": max(of.ru_maxrss for of in all_used) * 1024}


def ours(command, *options, cores=None):
    """The figures of one `bench` command."""
    bound = ["taskset", "-c", cores] if cores else []
    run = subprocess.run([*bound, ARGUMENTS.bench, command, "--tidegate", ARGUMENTS.tidegate, *options], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"bench {command} {' '.join(options)}: {run.stderr}")
    return json.loads(run.stdout.strip().splitlines()[-1])


def file_run(work, devices, readings, epoch="1s", cores=None):
    """One run of ours over a file, in the terms of `measured`."""
    found = ours("file", "--json", "--folder", ARGUMENTS.folder, "--work", work, "--devices", str(devices), "--readings", str(readings),
                 "--epoch", epoch, cores=cores)
    return {"cpu": found["user_seconds"] + found["system_seconds"], "seconds": found["wall_seconds"], "peak_bytes": found["peak_bytes"]}


def peer_run(peer, work, devices, readings):
    python = ARGUMENTS.flink if peer == "flink" else sys.executable
    out = f"{ARGUMENTS.folder}/{peer}-{work}"
    return measured([python, f"{HERE}/peers/files.py", peer, work, input_of(devices, readings), out, "--sites", f"{ARGUMENTS.folder}/sites.csv"])


def input_of(devices, readings):
    return f"{ARGUMENTS.folder}/w1-{readings}-{devices}-1.ndjson"


def export(table):
    """A table of ours as Parquet files that DuckDB reads."""
    folder = f"{ARGUMENTS.folder}/export-{table}"
    shutil.rmtree(folder, ignore_errors=True)
    run = subprocess.run([ARGUMENTS.tidegate, "tiers", "export", "--config", f"{ARGUMENTS.folder}/pipeline.toml", "--table", table, "--to", folder],
                         capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"tiers export {table}: {run.stderr}")
    return f"read_parquet('{folder}/*.parquet')"


WINDOW = "device_id, window_start, sum(n)::BIGINT AS n, round(sum(total), 4) AS total, min(least) AS least, max(greatest) AS greatest"


def our_answer(work):
    """What ours came to, to hold the peers against: a relation in `DATABASE` under the name `ours`."""
    if work == "enrich":
        results = export("results")
        sql = f"SELECT {CHECKSUM} FROM {results}"
    else:
        results = export("results")
        parts = f"SELECT device_id, epoch(window_start)::BIGINT AS window_start, n, total, least, greatest FROM {results}"
        if work == "tumbling":
            # Batch peers drop nothing: what was late for us goes into its window here.
            late = export("late_windows")
            parts += f" UNION ALL SELECT device_id, floor(epoch(event_time) / 10)::BIGINT * 10, 1, value, value, value FROM {late}"
        sql = f"SELECT {WINDOW} FROM ({parts}) GROUP BY 1, 2"
    DATABASE.execute(f"CREATE OR REPLACE TABLE ours AS {sql}")


CHECKSUM = "count(*) AS rows, sum(hash(device_id || '/' || seq || '/' || site)::HUGEINT) AS keys, round(sum(fahrenheit), 2) AS total"


def compare(peer, work):
    """Ends the run where a peer's results are not ours."""
    out = f"{ARGUMENTS.folder}/{peer}-{work}"
    files = f"{out}/**/*.parquet" if os.path.isdir(out) else out
    if work == "enrich":
        theirs = f"SELECT {CHECKSUM} FROM read_parquet('{files}')"
    else:
        read = f"read_json('{out}/part-*')" if peer == "flink" else f"read_parquet('{files}')"
        theirs = f"SELECT {WINDOW} FROM {read} GROUP BY 1, 2"
    DATABASE.execute(f"CREATE OR REPLACE TABLE theirs AS {theirs}")
    count = lambda sql: DATABASE.execute(sql).fetchone()[0]
    if peer == "flink" or work == "hopping":
        # One of both drops what is late, each by its own watermark: the windows that nothing was late for must agree, and they are nearly all.
        of = "ours JOIN theirs USING (device_id, window_start)"
        all_of = count(f"SELECT count(*) FROM {of}")
        different = count(f"SELECT count(*) FROM {of} WHERE ours.n = theirs.n AND (abs(ours.total - theirs.total) > 0.001 OR ours.least <> theirs.least OR ours.greatest <> theirs.greatest)")
        unlike = count(f"SELECT count(*) FROM {of} WHERE ours.n <> theirs.n") / max(all_of, 1)
        missing = abs(count("SELECT count(*) FROM ours") - all_of) / max(all_of, 1)
        if different or unlike > 0.02 or missing > 0.02:
            sys.exit(f"{peer}, {work}: {different} windows differ, {unlike:.2%} have another number of readings, {missing:.2%} are missing")
    else:
        for one, other in (("ours", "theirs"), ("theirs", "ours")):
            extra = count(f"SELECT count(*) FROM (FROM {one} EXCEPT FROM {other})")
            if extra:
                sys.exit(f"{peer}, {work}: {extra} rows of {one} are not in {other}: {DATABASE.execute(f'FROM {one} EXCEPT FROM {other} LIMIT 3').fetchall()}")


def mean(runs):
    return {key: statistics.mean(run[key] for run in runs) for key in runs[0]}


def file_work(name, work, devices, readings, peers, rounds):
    """Ours and the peers in turn, on the same file."""
    runs = {}
    for number in range(rounds):
        for who in ["tidegate", *peers]:
            say(f"{name}: {who}, round {number + 1}")
            run = file_run(work, devices, readings) if who == "tidegate" else peer_run(who, work, devices, readings)
            runs.setdefault(who, []).append(run)
            if number == 0:
                our_answer(work) if who == "tidegate" else compare(who, work)
            if who == "flink":
                peers = [peer for peer in peers if peer != "flink"]
    million = readings / 1e6
    return {who: {"cpu_per_million": of["cpu"] / million, "readings_per_second": readings / of["seconds"], "peak_mib": of["peak_bytes"] / 2**20}
            for who, of in ((who, mean(runs)) for who, runs in runs.items())}


def cold_bytes(*options):
    """Bytes a reading in cold files, of `benches/bytes`."""
    run = subprocess.run([*ARGUMENTS.bytes.split(), *options], capture_output=True, text=True)
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("files ")]
    if run.returncode != 0 or not lines:
        sys.exit(f"{ARGUMENTS.bytes}: {run.stderr[-2000:]}")
    return float(lines[0][-1])


def measure():
    readings = ARGUMENTS.readings
    batch, flink = ["duckdb", "polars", "datafusion"], ["flink"] if ARGUMENTS.flink else []
    found = {"w1": file_work("W1", "tumbling", 10_000, readings, batch + flink, 2)}
    say("W1 in one epoch")
    million = readings / 1e6
    runs = mean([file_run("tumbling", 10_000, readings, epoch="1h") for _ in range(2)])
    found["w1_without"] = {"cpu_per_million": runs["cpu"] / million, "readings_per_second": readings / runs["seconds"], "peak_mib": runs["peak_bytes"] / 2**20}
    say("W1 on one core, and on two")
    one, two = (mean([file_run("tumbling", 10_000, readings, cores=cores) for _ in range(2)]) for cores in ("0", "0,1"))
    found["cores"] = {"one": readings / one["seconds"], "two": readings / two["seconds"]}
    found["w1_million"] = file_work("W1, a million devices", "tumbling", 1_000_000, readings, batch, 1)
    found["w2"] = file_work("W2", "hopping", 10_000, readings, ["duckdb", "polars"], 1)
    found["w3"] = file_work("W3", "enrich", 10_000, readings, batch, 1)
    say("MQTT")
    found["mqtt"] = ours("mqtt", "--json", "--folder", f"{ARGUMENTS.folder}/mqtt")
    say("starts")
    found["start"] = ours("start", "--json", "--folder", f"{ARGUMENTS.folder}/start")
    say("durability")
    found["profiles"] = profiles(readings)
    if ARGUMENTS.bytes:
        say("bytes a reading")
        found["bytes"] = {"floats": cold_bytes(), "decimals": cold_bytes("--decimals")}
    found["durability"] = ours("durability", "--folder", f"{ARGUMENTS.folder}/durability", "--rounds", "2", "--messages", "200000", "--seconds", "10")
    return found


def profiles(readings):
    """Where the time of a run goes, by thread and function: the greatest shares, as `perf` sees them. Empty where there is no `perf`."""
    if not shutil.which("perf"):
        say("no perf: the page says nothing of where the time goes")
        return {}
    file = lambda work, devices: ["file", "--folder", ARGUMENTS.folder, "--work", work, "--devices", str(devices), "--readings", str(readings)]
    runs = {"W1": file("tumbling", 10_000), "W1, a million devices": file("tumbling", 1_000_000), "W3": file("enrich", 10_000),
            "MQTT": ["mqtt", "--folder", f"{ARGUMENTS.folder}/mqtt", "--messages", "1000000", "--rounds", "1", "--seconds", "5"]}
    found = {}
    for name, (command, *options) in runs.items():
        say(f"profile of {name}")
        data = f"{ARGUMENTS.folder}/perf.data"
        run = ["perf", "record", "--quiet", "-F", "299", "-o", data, "--", ARGUMENTS.bench, command, "--tidegate", ARGUMENTS.tidegate, *options]
        done = subprocess.run(run, capture_output=True, text=True)
        if done.returncode != 0:
            # The figures took minutes, and are whole without it.
            say(f"no profile of {name}: {done.stderr}")
            continue
        told = subprocess.run(["perf", "report", "--stdio", "--sort", "comm,symbol", "-i", data], capture_output=True, text=True).stdout
        found[name] = [line.strip()[:150] for line in told.splitlines() if line.strip() and not line.startswith("#")][:20]
    return found


def main():
    result = {**facts(), "readings": ARGUMENTS.readings, "seed": 1, "build": ARGUMENTS.build, "figures": None}
    began = time.monotonic()
    result["figures"] = measure()
    result["minutes"] = round((time.monotonic() - began) / 60, 1)
    name = f"{ARGUMENTS.results}/{result['day']}-{result['commit'].split()[0]}"
    os.makedirs(ARGUMENTS.results, exist_ok=True)
    with open(f"{name}.json", "w") as file:
        json.dump(result, file, indent=1)
    with open(f"{name}.html", "w") as file:
        file.write(page(result))
    for work, aim, figure, ok, beside in rows(result["figures"]):
        say(f"{'reached' if ok else 'missed ':8}{work:72} {aim:30} {figure:34} {beside}")
    say(f"{result['minutes']} minutes; {name}.html")


PARSER = argparse.ArgumentParser()
PARSER.add_argument("--tidegate", default="target/release/tidegate")
PARSER.add_argument("--bench", default="target/release/bench")
PARSER.add_argument("--flink", help="a Python that has apache-flink; without one Flink is left out")
PARSER.add_argument("--bytes", help="the command that measures bytes a reading; without it they are left out")
PARSER.add_argument("--folder", default="target/bench", help="input and data, 10 GB")
PARSER.add_argument("--results", default=f"{HERE}/results")
PARSER.add_argument("--readings", type=int, default=10_000_000)
PARSER.add_argument("--build", default="release", help="what the page says of the binary")

if __name__ == "__main__":
    ARGUMENTS = PARSER.parse_args()
    for path in ("tidegate", "bench", "folder", "results"):
        setattr(ARGUMENTS, path, os.path.abspath(getattr(ARGUMENTS, path)))
    os.makedirs(ARGUMENTS.folder, exist_ok=True)
    DATABASE = duckdb.connect()
    main()
