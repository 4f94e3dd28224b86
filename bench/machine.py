"""Where and of what figures were measured."""

import datetime
import os
import platform
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


def facts():
    """Day, commit and machine."""
    git = lambda *words: subprocess.run(["git", "-C", HERE, *words], capture_output=True, text=True).stdout.strip()
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    changed = " with changes" if git("status", "--porcelain") else ""
    return {"day": datetime.date.today().isoformat(), "commit": git("rev-parse", "--short=9", "HEAD") + changed,
            "machine": f"{len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GiB"}
