"""Load scenarios (`bench/scenarios`) against a real Mosquitto and the binary: `make load SCENARIO=burst`, or all of them.

    Mosquitto ◄── tidegate simulate --truth        every reading, when it was due
        └───────► tidegate run (config/pipelines/demo.toml)   ◄── count(*), again and again: when it became visible in SQL
    both, beside memory and CPU ─► figures (bench/results/<day>-<commit>-load-<scenario>.json) ─► load_page.py (the same name, .html)
    tidegate verify ─► whether each table holds what it must

The fleet, the broker, the binary and the questions share the machine's cores. A reading's latency counts from the moment it was due, so that a
broker that is behind does not flatter the figures; readings that came twice count once, broken ones not at all.
"""

import argparse
import bisect
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib

import duckdb

from load_page import page
from machine import HERE, facts

ALL = ["steady", "burst", "storm", "upload", "hot_key", "cardinality", "soak", "saturation"]
PIPELINE = f"{HERE}/../config/pipelines/demo.toml"
ASK_EVERY, SAMPLE_EVERY = 0.025, 0.5
# Seconds until something that must come is given up.
PATIENCE = 60
# The search for the highest rate ends when the next is so little higher.
NEAR = 1.07
TICKS = os.sysconf("SC_CLK_TCK")
# What the product does with its readings has to come to this to count as sustained.
VISIBLE_P99, LAG_P99 = 1.0, 0.25


def say(text):
    print(text, flush=True)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(what, test):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if (found := test()) is not None:
            return found
        time.sleep(0.02)
    sys.exit(f"load: {what} did not come within {PATIENCE} s")


class Broker:
    """A Mosquitto of its own."""

    def __enter__(self):
        self.port = free_port()
        config = f"{ARGUMENTS.folder}/mosquitto.conf"
        with open(config, "w") as file:
            file.write(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nmax_inflight_messages 1000\nlog_dest none\n")
        try:
            self.child = subprocess.Popen(["mosquitto", "-c", config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            sys.exit("load: mosquitto is not installed; `make setup` does that")
        wait_for("the broker", lambda: None if socket.socket().connect_ex(("127.0.0.1", self.port)) else True)
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()


class Pipeline:
    """The demo's pipeline in a fresh folder, behind a broker, and what is seen of it."""

    def __init__(self, folder, broker):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.http, self.file, self.log = free_port(), f"{folder}/pipeline.toml", f"{folder}/log"
        with open(PIPELINE) as file:
            text = file.read()
        for old, new in (("127.0.0.1:1883", f"127.0.0.1:{broker.port}"), ("127.0.0.1:9464", f"127.0.0.1:{free_port()}"), ('"data/demo"', f'"{folder}/data"'), ('"cold/demo"', f'"{folder}/cold"')):
            assert old in text, old
            text = text.replace(old, new)
        with open(self.file, "w") as file:
            file.write(f'{text}\n[http]\nlisten = "127.0.0.1:{self.http}"\n')
        self.child, self.answers, self.samples = None, [], []

    def start(self):
        self.child = subprocess.Popen([ARGUMENTS.tidegate, "run", self.file], stdin=subprocess.DEVNULL, stdout=open(self.log, "a"), stderr=subprocess.STDOUT)
        wait_for(f"an answer of the pipeline ({self.log})", self.visible)
        self.watching = threading.Event()
        self.watchers = [threading.Thread(target=self.watch, args=of, daemon=True) for of in ((ASK_EVERY, self.ask), (SAMPLE_EVERY, self.sample))]
        for watcher in self.watchers:
            watcher.start()

    def watch(self, every, look):
        while not self.watching.wait(every):
            look()

    def visible(self):
        """Readings that SQL counts; none while it does not answer."""
        try:
            asked = http.client.HTTPConnection("127.0.0.1", self.http, timeout=PATIENCE)
            asked.request("POST", "/api/v1/sql", "SELECT count(*) FROM readings", {"Accept": "text/csv", "Content-Type": "text/plain"})
            answer = asked.getresponse()
            text = answer.read().decode()
            return int(text.split()[-1]) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            asked.close()

    def ask(self):
        if (count := self.visible()) is not None:
            self.answers.append((time.time(), count))

    def sample(self):
        try:
            with open(f"/proc/{self.child.pid}/stat") as file:
                after_name = file.read().rsplit(")", 1)[1].split()
            with open(f"/proc/{self.child.pid}/status") as file:
                kib = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        except (OSError, StopIteration):
            return
        self.samples.append((time.time(), (int(after_name[11]) + int(after_name[12])) / TICKS, kib / 1024))

    def catch_up(self, count, patience=PATIENCE):
        """Waits until so many are visible; false when they do not come."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if self.answers and self.answers[-1][1] >= count:
                return True
            time.sleep(ASK_EVERY)
        return False

    def stop(self):
        self.watching.set()
        for watcher in self.watchers:
            watcher.join()
        self.child.send_signal(signal.SIGTERM)
        if self.child.wait() != 0:
            sys.exit(f"load: the pipeline ended with {self.child.returncode}, see {self.log}")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def close_windows(self):
        run = subprocess.run([ARGUMENTS.tidegate, "run", self.file, "--until-idle", "2s"], capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"load: the last windows were not closed: {run.stderr[-2000:]}")


def simulate(scenario, broker, truth, *more):
    """The simulator's report, and whether it kept its schedule."""
    shutil.rmtree(truth, ignore_errors=True)
    command = [ARGUMENTS.tidegate, "simulate", "--scenario", f"{HERE}/scenarios/{scenario}.toml", "--url", f"mqtt://127.0.0.1:{broker.port}", "--truth", truth, "--json", *more]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        return None, run.stderr.strip()
    return json.loads(run.stdout), None


def dues(truth):
    """When each reading that a table must hold was first due, in order: seconds since 1970."""
    files = f"read_parquet('{truth}/readings.parquet')"
    sql = f"SELECT epoch(min(due)) FROM {files} WHERE reason IS NULL GROUP BY device, seq ORDER BY 1"
    return [row[0] for row in DATABASE.execute(sql).fetchall()]


def latencies(dues, answers):
    """Of each reading: from the moment it was due to the first answer that counts it."""
    found, next_one = [], 0
    for at, count in answers:
        for number in range(next_one, min(count, len(dues))):
            found.append(max(0.0, at - dues[number]))
        next_one = max(next_one, count)
    return found


def quantile(sorted_values, q):
    return sorted_values[int((len(sorted_values) - 1) * q)] if sorted_values else None


def by_second(dues, answers, samples, took):
    """Lines over time: readings due and visible a second, what waits, latency, memory and cores."""
    begin, end = dues[0], max(dues[-1], answers[-1][0])
    lines = {key: [] for key in ("due", "visible", "waiting", "p50", "p99", "memory", "cores")}
    times, counts = [at for at, _ in answers], [count for _, count in answers]
    at_time = lambda t: counts[bisect.bisect_right(times, t) - 1] if t >= times[0] else 0
    for second in range(int(end - begin) + 1):
        first, last = begin + second, begin + second + 1
        low, high = bisect.bisect_left(dues, first), bisect.bisect_left(dues, last)
        of_second = sorted(took[low:high])
        lines["due"].append((second, high - low))
        lines["visible"].append((second, at_time(last) - at_time(first)))
        lines["waiting"].append((second, max(0, high - at_time(last))))
        if of_second:
            lines["p50"].append((second, 1e3 * quantile(of_second, 0.5)))
            lines["p99"].append((second, 1e3 * quantile(of_second, 0.99)))
    for before, after in zip(samples, samples[1:]):
        if begin <= after[0] <= end:
            lines["memory"].append((after[0] - begin, after[2]))
            lines["cores"].append((after[0] - begin, (after[1] - before[1]) / (after[0] - before[0])))
    return lines


def run(scenario, *more):
    """One run of a scenario: its figures, and what the referee says; or what went wrong."""
    folder = f"{ARGUMENTS.folder}/{scenario}"
    with Broker() as broker, Pipeline(folder, broker) as pipeline:
        report, fault = simulate(scenario, broker, f"{folder}/truth", *more)
        if report is None:
            return {"fault": fault}
        due = dues(f"{folder}/truth")
        if not pipeline.catch_up(len(due)):
            return {"fault": f"{pipeline.answers[-1][1]:,} of {len(due):,} readings became visible", "simulated": report}
        pipeline.stop()
        pipeline.close_windows()
    took = latencies(due, pipeline.answers)
    ordered, samples = sorted(took), pipeline.samples
    visible = {name: 1e3 * quantile(ordered, q) for name, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1))}
    return {"readings": len(due), "simulated": report, "complete": True, "visible_ms": visible, "cores": (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0]),
            "peak_mib": max(mib for _, _, mib in samples), "lines": by_second(due, pipeline.answers, samples, took), "verdict": verify(f"{folder}/truth", pipeline.file)}


def verify(truth, pipeline):
    """What the referee found of each table."""
    run = subprocess.run([ARGUMENTS.tidegate, "verify", "--truth", truth, "--pipeline", pipeline, "--json"], capture_output=True, text=True)
    try:
        verdict = json.loads(run.stdout)
    except ValueError:
        sys.exit(f"load: verify said {run.stdout[-1000:]} {run.stderr[-1000:]}")
    return [{key: check[key] for key in ("table", "expected", "found", "differences", "note")} for check in verdict["checks"]]


def sustained(found):
    return (found.get("complete", False) and found["visible_ms"]["p99"] < 1e3 * VISIBLE_P99 and found["simulated"]["lag_seconds"]["p99"] < LAG_P99
            and not any(check["differences"] for check in found["verdict"]))


def search():
    """The highest rate that is sustained: doubled until one is not, then halved in between."""
    with open(f"{HERE}/scenarios/saturation.toml", "rb") as file:
        devices = tomllib.load(file)["devices"]
    tries, low, high = [], None, None
    rate = ARGUMENTS.start_rate
    while high is None or low is None or high / low > NEAR:
        found = run("saturation", "--rate", str(rate / devices))
        tries.append({"rate": rate, "sustained": sustained(found), **{key: of for key, of in found.items() if key != "lines"}})
        p99 = f"visible p99 {found['visible_ms']['p99']:.0f} ms" if found.get("complete") else found["fault"]
        say(f"saturation: {rate:,.0f} readings a second: {'sustained' if tries[-1]['sustained'] else 'not sustained'}, {p99}")
        if tries[-1]["sustained"]:
            low = rate
        else:
            high = rate
        if rate < 100:
            sys.exit("load: not even 100 readings a second are sustained")
        rate = rate * 2 if high is None else rate / 2 if low is None else (low * high) ** 0.5
    return {"tries": sorted(tries, key=lambda of: of["rate"]), "highest": low, "readings": sum(of.get("readings", 0) for of in tries)}


def main():
    names = ALL if ARGUMENTS.scenario == "all" else [ARGUMENTS.scenario]
    more = ["--seed", str(ARGUMENTS.seed)] + (["--lasting", ARGUMENTS.lasting] if ARGUMENTS.lasting else [])
    result = {**facts(), "seed": ARGUMENTS.seed, "build": ARGUMENTS.build, "scenarios": {}}
    wrong = []
    for name in names:
        say(f"{name}: begins")
        found = search() if name == "saturation" else run(name, *more)
        result["scenarios"][name] = found
        if name == "saturation":
            say(f"saturation: {found['highest']:,.0f} readings a second")
        elif not found.get("complete"):
            wrong.append(f"{name}: {found['fault']}")
        else:
            differ = [check["table"] for check in found["verdict"] if check["differences"]]
            wrong += [f"{name}: {table} is not what it must be" for table in differ]
            took = found["visible_ms"]
            say(f"{name}: {found['readings']:,} readings, visible p50 {took['p50']:.0f} ms, p99 {took['p99']:.0f} ms, longest {took['max']:.0f} ms; {found['cores']:.2f} cores; "
                f"peak {found['peak_mib']:.0f} MiB; {len(found['verdict'])} tables, {'as they must be' if not differ else 'NOT as they must be: ' + ', '.join(differ)}")
        shutil.rmtree(f"{ARGUMENTS.folder}/{name}/data", ignore_errors=True)
    os.makedirs(ARGUMENTS.results, exist_ok=True)
    path = f"{ARGUMENTS.results}/{result['day']}-{result['commit'].split()[0]}-load-{ARGUMENTS.scenario}"
    with open(f"{path}.json", "w") as file:
        json.dump(result, file, indent=1)
    with open(f"{path}.html", "w") as file:
        file.write(page(result))
    say(f"{path}.html")
    if wrong:
        sys.exit("load: " + "; ".join(wrong))


PARSER = argparse.ArgumentParser(description="Runs load scenarios and writes a page about them.")
PARSER.add_argument("scenario", choices=["all", *ALL])
PARSER.add_argument("--tidegate", default="target/release/tidegate")
PARSER.add_argument("--folder", default="target/load", help="data")
PARSER.add_argument("--results", default=f"{HERE}/results")
PARSER.add_argument("--seed", type=int, default=1)
PARSER.add_argument("--lasting", help="instead of what the scenario says, as 8h")
PARSER.add_argument("--start-rate", type=float, default=20_000, help="readings a second with which the search for saturation begins")
PARSER.add_argument("--build", default="release", help="what the page says of the binary")

if __name__ == "__main__":
    ARGUMENTS = PARSER.parse_args()
    for path in ("tidegate", "folder", "results"):
        setattr(ARGUMENTS, path, os.path.abspath(getattr(ARGUMENTS, path)))
    os.makedirs(ARGUMENTS.folder, exist_ok=True)
    DATABASE = duckdb.connect()
    main()
