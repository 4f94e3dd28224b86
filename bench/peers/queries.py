"""Times queries of Tidegate beside DuckDB on the same rows: in DuckDB's own table, and in the Parquet files of Tidegate's warm tier.

Both get the same cores (`taskset` around this script bounds both). Tidegate answers over HTTP from a running instance, DuckDB inside this
process: its numbers have no transport in them, ours do. Every answer is compared value by value before a time is told.

    python bench/peers/queries.py --tidegate target/release/tidegate --readings 50000000
"""

import argparse
import csv
import glob
import io
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

import duckdb

# 2025-01-01T00:00:00Z; each device sends a reading a second.
START = 1_735_689_600
ANSWER_WITHIN = 600

PIPELINE = """[pipeline]
name = "queries"
data_dir = "{folder}/data"
lanes = 2

[sources.readings]
type = "file"
path = "{folder}/input.ndjson"
mode = "watch"
decode = {{ format = "json", event_time = {{ path = "$.ts", format = "unix_ms" }} }}
columns = {{ device = {{ type = "utf8" }}, temperature = {{ type = "float64" }}, humidity = {{ type = "float64" }}, seq = {{ type = "int64" }} }}
key = ["device"]
watermark = {{ out_of_orderness = "5s" }}

[tables.readings]
inputs = ["readings"]
hot = {{ age = "1s" }}

[http]
listen = "127.0.0.1:0"

[observability]
metrics = "127.0.0.1:0"
"""


def questions(devices):
    """Name, Tidegate's SQL, DuckDB's SQL. `{t}` is the table."""
    hour, day = START + 3 * 3600, START + 86400
    ours = lambda seconds: f"to_timestamp({seconds})"
    theirs = lambda seconds: f"make_timestamp({seconds}::BIGINT * 1000000)"
    of = f"device = 'd{devices // 2:05}'"
    both = [
        ("last value of every device", "SELECT DISTINCT ON (device) device, temperature FROM {t} ORDER BY device, event_time DESC"),
        ("1-hour averages of one device over a day",
         "SELECT date_trunc('hour', event_time) AS h, avg(temperature) AS a FROM {t} WHERE " + of + " AND event_time < {day} GROUP BY 1 ORDER BY 1"),
        ("1-minute group-by of all devices over an hour",
         "SELECT device, date_trunc('minute', event_time) AS m, avg(temperature) AS a, max(humidity) AS b FROM {t}"
         " WHERE event_time >= {hour} AND event_time < {next} GROUP BY 1, 2 ORDER BY 1, 2"),
        ("top 10 devices by maximum", "SELECT device, max(temperature) AS x FROM {t} GROUP BY device ORDER BY x DESC, device LIMIT 10"),
        ("filtered count", "SELECT count(*) AS n FROM {t} WHERE temperature > 30 AND humidity < 40"),
        ("count(*)", "SELECT count(*) AS n FROM {t}"),
        ("one device over an hour",
         "SELECT event_time, temperature FROM {t} WHERE " + of + " AND event_time >= {hour} AND event_time < {next} ORDER BY event_time"),
        ("the newest 100 readings", "SELECT event_time, device FROM {t} ORDER BY event_time DESC, device LIMIT 100"),
    ]
    fill = lambda sql, at: sql.replace("{day}", at(day)).replace("{hour}", at(hour)).replace("{next}", at(hour + 3600))
    return [(name, fill(sql, ours), fill(sql, theirs)) for name, sql in both]


class Tidegate:
    """An instance of the pipeline."""

    def __init__(self, binary, folder):
        self.folder = folder
        with open(f"{folder}/queries.toml", "w") as file:
            file.write(PIPELINE.format(folder=folder))
        self.log = open(f"{folder}/tidegate.log", "w")
        self.process = subprocess.Popen([binary, "run", f"{folder}/queries.toml"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.url = self.wait("its address", lambda: json.load(open(f"{folder}/data/instance.json")), 60)["http"]

    def wait(self, what, of, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"tidegate ended: see {self.folder}/tidegate.log")
            try:
                found = of()
                if found:
                    return found
            except (OSError, ValueError):
                pass
            time.sleep(0.2)
        sys.exit(f"no {what} within {seconds} s")

    def ask(self, sql):
        request = urllib.request.Request(f"http://{self.url}/api/v1/sql", sql.encode(), {"accept": "text/csv", "content-type": "text/plain"})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_WITHIN) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            sys.exit(f"{sql}: {error.read().decode()}")

    def number(self, sql):
        return int(self.ask(sql).splitlines()[1])

    def memory(self):
        status = open(f"/proc/{self.process.pid}/status").read()
        return {word: int(status.split(f"{word}:")[1].split()[0]) / 1024 for word in ("VmRSS", "VmHWM")}

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def make_input(database, arguments):
    path = f"{arguments.folder}/input.ndjson"
    database.execute(f"SELECT setseed({arguments.seed} / 1000.0)")
    database.execute(
        f"""COPY (SELECT 'd' || lpad((i % {arguments.devices})::VARCHAR, 5, '0') AS device,
            ({START} + i // {arguments.devices}) * 1000 + (random() * 200)::BIGINT AS ts,
            round(20 + 5 * sin(i / 86400.0 / {arguments.devices}) + (i % {arguments.devices}) % 10 + random() * 4 - 2, 2) AS temperature,
            round(50 + 15 * sin(i / 7000.0) + random() * 5, 1) AS humidity, i // {arguments.devices} AS seq
            FROM range({arguments.readings}) AS r(i)) TO '{path}' (FORMAT json)"""
    )
    return path


def rows_of(text):
    return [tuple(row) for row in list(csv.reader(io.StringIO(text)))[1:]]


def values(table):
    """The rows of an Arrow table; times without their zone, which is UTC."""
    plain = [column.cast("timestamp[us]") if str(column.type).startswith("timestamp") else column for column in table.columns]
    return list(zip(*(column.to_pylist() for column in plain)))


def same(ours, theirs):
    """Whether two answers hold the same values: numbers to nine digits, times to the millisecond as text."""
    if len(ours) != len(theirs):
        return False
    for a, b in zip(ours, theirs):
        for x, y in zip(a, b):
            try:
                if not math.isclose(float(x), float(y), rel_tol=1e-9):
                    return False
            except (TypeError, ValueError):
                x, y = str(x).replace("T", " ").rstrip("Z"), str(y)
                if x.split(".")[0] != y.split(".")[0] or x.partition(".")[2][:3].rstrip("0") != y.partition(".")[2][:3].rstrip("0"):
                    return False
    return True


def timed(run, times):
    """The median of some runs in milliseconds, and the answer."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        answer = run()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken), answer


def forget_files():
    """Empties the page cache; false where that is not allowed."""
    try:
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        return True
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tidegate", default="target/release/tidegate")
    parser.add_argument("--folder", default="target/bench-queries")
    parser.add_argument("--readings", type=int, default=50_000_000)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", help="a file for the figures")
    arguments = parser.parse_args()
    arguments.folder = os.path.abspath(arguments.folder)
    shutil.rmtree(arguments.folder, ignore_errors=True)
    os.makedirs(arguments.folder)
    database = duckdb.connect(f"{arguments.folder}/peer.duckdb", config={"threads": arguments.threads})
    database.execute("SET TimeZone = 'UTC'")
    make_input(database, arguments)
    start = time.monotonic()
    tidegate = Tidegate(arguments.tidegate, arguments.folder)
    tidegate.wait("readings", lambda: tidegate.number("SELECT count(*) FROM readings") == arguments.readings, 3600)
    ingested = time.monotonic() - start
    settled = lambda: tidegate.number("SELECT count(*) FROM tiers.readings WHERE _tier <> 'warm'") == 0
    tidegate.wait("warm rows", settled, 3600)
    wait_for_quiet(tidegate)
    figures = {"readings": arguments.readings, "devices": arguments.devices, "machine": platform.processor() or platform.machine(),
               "threads": arguments.threads, "ingest_seconds": round(ingested, 1), "memory_mib": tidegate.memory(), "queries": []}
    measure(database, tidegate, arguments, figures)
    tidegate.stop()
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def wait_for_quiet(tidegate):
    """Until compaction has nothing more to do: the number of files stays the same for a while."""
    since, files = time.monotonic(), None
    while time.monotonic() - since < 5:
        found = len(glob.glob(f"{tidegate.folder}/data/warm/readings/*"))
        if found != files:
            since, files = time.monotonic(), found
        time.sleep(0.5)


def measure(database, tidegate, arguments, figures):
    files = sorted(glob.glob(f"{arguments.folder}/data/warm/readings/*.parquet"))
    size = sum(map(os.path.getsize, files))
    figures.update(files=len(files), bytes_a_reading=round(size / arguments.readings, 2))
    print(f"{arguments.readings} readings ingested in {figures['ingest_seconds']} s; {len(files)} files, {size / arguments.readings:.2f} bytes a reading, "
          f"peak memory {figures['memory_mib']['VmHWM']:.0f} MiB")
    # Files that were merged linger for queries that began before: only what a new view names may be read.
    live = [f"'{arguments.folder}/data/warm/readings/{row[0]}'" for row in rows_of(tidegate.ask("SELECT file FROM tidegate.segments WHERE table_name = 'readings'"))]
    database.execute(f"CREATE VIEW files AS SELECT * FROM read_parquet([{', '.join(live)}])")
    database.execute("CREATE TABLE own AS SELECT * FROM files")
    database.execute("CHECKPOINT")
    print(f"{'milliseconds, median of ' + str(arguments.runs):48}{'tidegate':>10}{'own table':>11}{'our files':>11}{'ratio':>8}")
    for name, ours, theirs in questions(arguments.devices):
        cold = None
        if forget_files():
            cold = timed(lambda: tidegate.ask(ours.format(t="readings")), 1)[0]
        mine, text = timed(lambda: tidegate.ask(ours.format(t="readings")), arguments.runs)
        own, answer = timed(lambda: database.sql(theirs.format(t="own")).to_arrow_table(), arguments.runs)
        their, _ = timed(lambda: database.sql(theirs.format(t="files")).to_arrow_table(), arguments.runs)
        found, expected = rows_of(text), values(answer)
        if "ORDER BY" in ours and "DISTINCT ON" not in ours and not same(found, expected) or "DISTINCT ON" in ours and not same(sorted(found), sorted(expected)):
            sys.exit(f"{name}: the answers differ: {found[:3]} and {expected[:3]}")
        ratio = mine / min(own, their)
        figures["queries"].append({"name": name, "tidegate_ms": round(mine, 2), "tidegate_cold_ms": cold and round(cold, 2),
                                   "own_table_ms": round(own, 2), "our_files_ms": round(their, 2), "ratio": round(ratio, 2)})
        print(f"{name:48}{mine:10.1f}{own:11.1f}{their:11.1f}{ratio:8.2f}" + (f"   cold {cold:.1f}" if cold else ""))


if __name__ == "__main__":
    main()
