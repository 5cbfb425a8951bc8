#!/usr/bin/env python3
"""How cost grows: with sessions that are there and say nothing, and with messages that are stored.

    benches/growth.py target/release/whinchat target/release/examples/load > benches/data/growth.csv

Lines of `series,count,metric,value`. Needs as many open files as sessions (`ulimit -n 50000`), and some minutes.
"""
import csv
import os
import subprocess
import sys
import tempfile

from ratchet import Server

SESSIONS = [100, 1000, 5000, 10000, 19500]
STORED = [1000, 10000, 100000, 300000, 1000000]
TRIES = 5


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def sessions(binary, load, directory, write):
    server = Server(binary, directory)
    server.load(load, "register", "--accounts", SESSIONS[-1], "--jobs", 4, "--limit", 3000)
    server.stop()
    for count in SESSIONS:
        server = Server(binary, directory)
        words = [load, "idle", "--address", f"127.0.0.1:{server.plain}", "--pid", str(server.pid), "--base", "0"]
        words += ["--sessions", str(count), "--hold", "--jobs", "2"]
        crowd = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for line in crowd.stdout:
            if line.startswith(("pss_kib_after", "private_dirty_bytes_per_session")):
                name, value = line.split()
                write(("sessions", count, name, value))
            if line.strip() == "ready":
                break
        for window in (1, 16):
            chat = [server.load(load, "chat", "--window", window, "--seconds", 1) for _ in range(TRIES)]
            write(("sessions", count, f"cpu_us_per_message_window_{window}", median(float(c["cpu_us_per_message"]) for c in chat)))
        crowd.stdin.close()
        crowd.wait()
        if count == SESSIONS[-1]:
            # What the crowd leaves behind, at once and when the loop has been idle.
            after = server.load(load, "idle", "--base", 4, "--sessions", 1, "--settle", 3)
            write(("sessions", 0, "pss_kib_after_the_crowd", after["pss_kib_before"]))
        server.stop()


def stored(binary, load, directory, write):
    server = Server(binary, directory, archive=True)
    server.load(load, "register", "--accounts", 100, "--jobs", 4)
    done = 0
    for count in STORED:
        many = ["chat", "--pairs", 50, "--window", 64, "--warm-up", 0, "--seconds", 600]
        while done < count - 5000:
            done += int(server.load(load, *many, "--count", min(200000, count - 5000 - done))["count"])
        for window, name in ((16, "of_50_pairs_16_in_flight"), (1, "of_50_pairs_1_in_flight")):
            out = server.load(load, "chat", "--pairs", 50, "--window", window, "--warm-up", 0, "--count", 2000, "--settle", 1)
            done += int(out["count"])
            write(("stored", count, f"cpu_us_per_message_{name}", out["cpu_us_per_message"]))
            write(("stored", count, f"written_bytes_per_message_{name}", out["written_bytes_per_message"]))
        write(("stored", count, "file_bytes", os.path.getsize(os.path.join(directory, "data", "whinchat.redb"))))
        with open(f"/proc/{server.pid}/smaps_rollup") as rollup:
            pss = next(line.split()[1] for line in rollup if line.startswith("Pss:"))
        write(("stored", count, "pss_kib", pss))
    server.stop()


def gathered(binary, load, directory, write):
    """A quiet house: 20 pairs, 200 messages a second together."""
    server = Server(binary, directory)
    server.load(load, "register", "--accounts", 40, "--jobs", 4)
    server.stop()
    for gather in (0, 5, 10, 20, 50):
        server = Server(binary, directory, archive=True, limits=f"store_gather_ms = {gather}")
        out = server.load(load, "chat", "--pairs", 20, "--window", 16, "--rate", 200, "--seconds", 5, "--settle", 1)
        write(("gather", gather, "cpu_us_per_message", out["cpu_us_per_message"]))
        write(("gather", gather, "written_bytes_per_message", out["written_bytes_per_message"]))
        server.stop()


def main():
    binary, load = (os.path.abspath(path) for path in sys.argv[1:3])
    out = csv.writer(sys.stdout)
    out.writerow(("series", "count", "metric", "value"))

    def write(row):
        out.writerow(row)
        sys.stdout.flush()

    for series in (sessions, stored, gathered):
        with tempfile.TemporaryDirectory(prefix="whinchat-growth.") as directory:
            series(binary, load, directory, write)


main()
