#!/usr/bin/env python3
"""The command `explain` on a large cluster: its wall time and memory, from start to exit.

scripts/bench runs this for `explain` (tests/bench/explain.cc) and prints its lines, one JSON object a figure.
The cluster is made up from what a real Nomad recorded (tests/data/placement), entries as long as there, and
served page by page as Nomad serves it; making the pages is not measured, sending them is: what the server of
here takes for it, on the same cores, is a figure of its own.
"""
import argparse
import copy
import http.server
import json
import os
import pathlib
import random
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

RECORDED = pathlib.Path(__file__).resolve().parents[1] / "data/placement"
PAGE = {"/v1/nodes": 500, "/v1/allocations": 2500}  # what explain asks for
ALLOCATIONS_PER_NODE = 10
TARGET_S, TARGET_MIB = 1.0, 200


def recorded(path):
    return json.loads((RECORDED / path).read_text())


def fleet(count):
    """Lists of nodes and allocations: every node nearly full of agents, with two addresses, in two datacenters."""
    chance = random.Random(1)
    one_node, one_allocation = recorded("cluster/nodes.json")[0], recorded("cluster/allocations.json")[0]
    nodes, allocations = [], []
    for number in range(count):
        node = copy.deepcopy(one_node)
        node.update(ID=f"{number:08x}-64cc-6259-e419-89f7cbd16cd6", Name=f"node-{number}", NodeClass="ci",
                    Datacenter=f"dc{number % 2 + 1}", Status="ready" if number % 50 else "down",
                    SchedulingEligibility="eligible" if number % 40 else "ineligible")
        node["NodeResources"]["Memory"]["MemoryMB"] = 64 * 1024
        node["NodeResources"]["Cpu"]["CpuShares"] = 64000
        nodes.append(node)
        for held in range(ALLOCATIONS_PER_NODE):
            allocation = copy.deepcopy(one_allocation)
            index = number * ALLOCATIONS_PER_NODE + held
            allocation.update(ID=f"{index:08x}-362a-b0d2-3bda-9a30ebb431bf", NodeID=node["ID"], NodeName=node["Name"],
                              JobID=f"ci-{index}", Name=f"ci-{index}.jenkins-agent[0]")
            allocation["AllocatedResources"]["Tasks"]["agent"]["Memory"]["MemoryMB"] = chance.randint(5800, 6200)
            allocations.append(allocation)
    return nodes, allocations


class Answers:
    """Bodies by path; a list by page."""

    def __init__(self, count):
        nodes, allocations = fleet(count)
        self.pages = {path: self.cut(entries, PAGE[path])
                      for path, entries in (("/v1/nodes", nodes), ("/v1/allocations", allocations))}
        case = RECORDED / "cases/memory"
        job = json.loads((case / "job.json").read_text())
        group = job["TaskGroups"][0]
        group["Tasks"][0]["Resources"]["MemoryMB"] = 6500
        self.bodies = {f"/v1/job/{job['ID']}{name}": (case / file).read_bytes() for name, file in
                       (("/evaluations", "evaluations.json"), ("/summary", "summary.json"))}
        self.bodies[f"/v1/job/{job['ID']}"] = json.dumps(job).encode()
        self.bodies[f"/v1/job/{job['ID']}/plan"] = b'{"FailedTGAllocs":null}'
        self.bodies["/v1/operator/scheduler/configuration"] = (RECORDED /
                                                               "cluster/scheduler-configuration.json").read_bytes()
        self.job = job["ID"]

    @staticmethod
    def cut(entries, page):
        return [json.dumps(entries[i:i + page], separators=(",", ":")).encode()
                for i in range(0, len(entries), page)]

    def size_mib(self):
        return sum(len(page) for pages in self.pages.values() for page in pages) / 2**20

    def find(self, target):
        """Status, headers and body."""
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/v1/acl/policies":
            return 400, {}, b"ACL support disabled"
        if "filter" in query:
            return 200, {}, b"[]"
        if url.path in self.pages:
            if query.get("per_page") != str(PAGE[url.path]):
                return 400, {}, b"pages of another size are not made"
            number = int(query.get("next_token", 0))
            pages = self.pages[url.path]
            following = {"X-Nomad-NextToken": str(number + 1)} if number + 1 < len(pages) else {}
            return 200, following, pages[number]
        body = self.bodies.get(url.path)
        return (200, {}, body) if body else (404, {}, b"not found")


def serve(answers):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: else each answer waits for an acknowledgement of the head.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            status, headers, body = answers.find(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        # explain opens up to 16 connections at once, and who finds the queue full (5 by default) tries again after a second.
        # Go's servers, Nomad's too, take the kernel's most.
        request_queue_size = socket.SOMAXCONN

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


# A process counts the peak of the one that it was forked from as its own, and this one holds the cluster.
MEASURE = """
import json, os, sys, time
start = time.monotonic()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
json.dump([os.waitstatus_to_exitcode(status), time.monotonic() - start,
           usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024], sys.stderr)
"""


def own_cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(address, job):
    """Seconds, seconds of CPU and MiB of one explanation, and the server's seconds of CPU."""
    before = own_cpu()
    result = subprocess.run([sys.executable, "-c", MEASURE, os.environ["DRIVER_BINARY"], "explain", job],
                            env={"NOMAD_ADDR": address}, capture_output=True, text=True, check=True)
    try:
        code, *figures = json.loads(result.stderr)
    except ValueError:
        sys.exit(result.stderr)
    if code != 2 or "does not fit now" not in result.stdout:
        sys.exit(f"explain: exit {code}\n{result.stdout}")
    return *figures, own_cpu() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=5000)
    options = parser.parse_args()
    answers = Answers(options.nodes)
    address = serve(answers)
    samples = [run(address, answers.job) for _ in range(options.runs)]
    conditions = (f"{options.nodes} nodes, {options.nodes * ALLOCATIONS_PER_NODE} allocations, "
                  f"{answers.size_mib():.0f} MiB of JSON, n {options.runs}")
    seconds, cpu, memory, server = zip(*samples)
    for figure, ours, target in (("explain_median_s", statistics.median(seconds), TARGET_S),
                                 ("explain_cpu_median_s", statistics.median(cpu), TARGET_S),
                                 ("explain_peak_rss_mib", max(memory), TARGET_MIB)):
        print(json.dumps({"figure": figure, "conditions": conditions, "ours": round(ours, 2),
                          "target": f"<= {target}", "met": ours <= target}), flush=True)
    print(json.dumps({"figure": "explain_server_cpu_median_s", "conditions": f"the stand-in for Nomad; {conditions}",
                      "ours": round(statistics.median(server), 3)}), flush=True)


if __name__ == "__main__":
    main()
