#!/usr/bin/env python3
"""A real Nomad agent with our driver, exec and raw_exec: what a job's owner and a node's operator see.

scripts/bench runs this for `nomad` (tests/bench/nomad.cc) and prints its lines, one JSON object a figure.
PROBE_FILE is the payload (probe.c), which says when its first instruction ran.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import struct
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
# pylint: disable=wrong-import-position
import cluster
from cluster import EXAMPLE_TASK, NomadAgent, Scratch

WARM_UPS = 2
RESTING_TASKS = 20
BATCH_ALLOCATIONS = 50
BATCH_RATIO = 3
HELPER_PSS_KB = 204.8  # 0.2 MiB

# design.md 9: submit to the first instruction, with either value of log_collection.
SUBMIT_MS = {"driver": 35, "nomad": 110}
# How each driver is told to run the payload. exec sees one directory, the smallest chroot there is;
# our sandbox has the host's /usr and so on, and the payload by a volume.
COMMANDS = {"jenkins-agent": "/probe/probe", "exec": "/bin/probe", "raw_exec": "{directory}/probe"}
OURS, *PEERS = COMMANDS
CLIENT = """
  chroot_env = {{
    "{directory}" = "/bin"
  }}
  host_volume "probe" {{
    path      = "{directory}"
    read_only = true
  }}
"""


class Node:
    """One Nomad agent, and the payload's jobs on it."""

    def __init__(self, log_collection):
        self.scratch = Scratch()
        self.directory = self.scratch.path / "probe"
        self.directory.mkdir(mode=0o755)
        shutil.copy(os.environ["PROBE_FILE"], self.directory / "probe")
        self.nomad = NomadAgent(self.scratch, options=f'log_collection = "{log_collection}"',
                                client=CLIENT.format(directory=self.directory))

    def __enter__(self):
        try:
            self.nomad.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.nomad.stop()
        self.scratch.remove()
        cluster.remove_nomad_cgroups()

    def submit(self, driver, count=1, arguments=()):
        """Returns when the job was sent, in seconds of CLOCK_MONOTONIC."""
        task = {"Name": EXAMPLE_TASK, "Driver": driver,
                "Config": {"command": COMMANDS[driver].format(directory=self.directory), "args": list(arguments)},
                "Resources": {"CPU": 20, "MemoryMB": 32}, "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1}}
        group = {"Name": "g", "Count": count, "Tasks": [task], "EphemeralDisk": {"SizeMB": 10},
                 "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
                 "ReschedulePolicy": {"Attempts": 0, "Unlimited": False}}
        if driver == OURS:
            task["VolumeMounts"] = [{"Volume": "probe", "Destination": "/probe", "ReadOnly": True}]
            group["Volumes"] = {"probe": {"Type": "host", "Source": "probe", "ReadOnly": True}}
        job = {"ID": driver, "Name": driver, "Type": "batch", "Datacenters": ["*"], "TaskGroups": [group]}
        sent = time.monotonic()
        self.nomad.request("PUT", "/v1/jobs", {"Job": job})
        return sent

    def allocations(self, driver, count, states):
        """All of a job, once each is in one of these states; none may have failed."""
        for found in self.nomad.changes(f"/v1/job/{driver}/allocations", 120):
            states_now = [each["ClientStatus"] for each in found]
            if set(states_now) & {"failed", "lost"}:
                raise AssertionError(f"a task of {driver} failed:\n"
                                     + "\n\n".join(self.nomad.story(each["ID"]) for each in found[:3]))
            if len(found) == count and set(states_now) <= set(states):
                return found
        raise AssertionError(f"waited 120 s for {count} allocations of {driver} to be {states}: {states_now}")

    def end(self, driver):
        """Removes the job and what it left on the node, which would otherwise burden the next one."""
        self.nomad.stop_job(driver)
        cluster.wait_for("the client to remove the allocation's directory",
                         lambda: not self.nomad.allocation_directories(), 120)

    # figures

    def first_instruction_ms(self, driver):
        sent = self.submit(driver)
        allocation = self.allocations(driver, 1, ["complete"])[0]["ID"]
        log = self.nomad.data / "alloc" / allocation / "alloc/logs" / f"{EXAMPLE_TASK}.stdout.0"
        seconds, nanoseconds = struct.unpack("qq", log.read_bytes())
        self.end(driver)
        return (seconds + nanoseconds / 1e9 - sent) * 1e3

    def batch_ms(self, driver):
        sent = self.submit(driver, BATCH_ALLOCATIONS)
        self.allocations(driver, BATCH_ALLOCATIONS, ["complete"])
        taken = (time.monotonic() - sent) * 1e3
        self.end(driver)
        return taken

    def helper_kb(self, driver):
        """(PSS, private dirty) a task of all processes that came with the tasks but are not the payload."""
        before = cluster.our_processes()
        self.submit(driver, RESTING_TASKS, ["rest"])
        self.allocations(driver, RESTING_TASKS, ["running"])
        came = {pid: line for pid, line in cluster.our_processes().items() if pid not in before}
        payload = COMMANDS[driver].format(directory=self.directory) + " rest"
        helpers = [pid for pid, line in came.items() if line != payload]
        if len(came) - len(helpers) != RESTING_TASKS:
            raise AssertionError(f"{len(came) - len(helpers)} of {RESTING_TASKS} payloads run: {came}")
        memory = [smaps(pid) for pid in helpers]
        self.end(driver)
        return tuple(sum(each[key] for each in memory) / RESTING_TASKS for key in ("Pss:", "Private_Dirty:"))


def smaps(pid):
    """{"Pss:": kB, ...} of a process (proc(5): smaps_rollup); one that has just ended takes nothing."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {"Pss:": 0, "Private_Dirty:": 0}
    return {line.split()[0]: int(line.split()[1]) for line in lines}


def figure(name, conditions, ours, peer=None, theirs=None, target=None, met=None):
    line = {"figure": name, "conditions": conditions, "ours": ours, "peer": peer, "theirs": theirs,
            "target": target, "met": met}
    print(json.dumps({key: value for key, value in line.items() if value is not None}), flush=True)


def alternated(measure, rounds, warm_ups=0):
    """{driver: samples}, in turns: a busy machine hits all of them alike."""
    samples = {driver: [] for driver in COMMANDS}
    for turn in range(-warm_ups, rounds):
        for driver, taken in samples.items():
            sample = measure(driver)
            if turn >= 0:
                taken.append(sample)
    return samples


def bench(log_collection, runs, rounds):
    logs = f"log_collection {log_collection}"
    with Node(log_collection) as node:
        starts = alternated(node.first_instruction_ms, runs, WARM_UPS)
        ours, limit = statistics.median(starts[OURS]), SUBMIT_MS[log_collection]
        conditions = f"{logs}, n {runs}"
        figure("submit_median_ms", conditions, ours, target=f"<= {limit}", met=ours <= limit)
        for peer in PEERS:
            figure("submit_median_ms", conditions, ours, peer, statistics.median(starts[peer]))

        helpers = {driver: node.helper_kb(driver) for driver in COMMANDS}
        pss, dirty = helpers[OURS]
        conditions = f"{logs}, {RESTING_TASKS} tasks"
        if log_collection == "driver":
            figure("nomad_helper_pss_kb", conditions, pss, target="<= 0.2 MiB", met=pss <= HELPER_PSS_KB)
        for peer in PEERS:
            figure("nomad_helper_pss_kb", conditions, pss, peer, helpers[peer][0])
            figure("nomad_helper_private_dirty_kb", conditions, dirty, peer, helpers[peer][1])

        batches = {driver: statistics.median(taken)
                   for driver, taken in alternated(node.batch_ms, rounds).items()}
        ours = batches[OURS]
        conditions = f"{logs}, n {rounds}"
        for peer in PEERS:
            promised = {"target": f"ratio >= {BATCH_RATIO}", "met": batches[peer] >= BATCH_RATIO * ours}
            figure(f"batch_{BATCH_ALLOCATIONS}_ms", conditions, ours, peer, batches[peer],
                   **(promised if peer == "exec" else {}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="single tasks of each driver")
    parser.add_argument("--rounds", type=int, default=3, help=f"batches of {BATCH_ALLOCATIONS} of each driver")
    arguments = parser.parse_args()
    cluster.require()
    cluster.enter_private_network()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as Ctrl-C: clean up
    for log_collection in SUBMIT_MS:
        bench(log_collection, arguments.runs, arguments.rounds)


if __name__ == "__main__":
    main()
