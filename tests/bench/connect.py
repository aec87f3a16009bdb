#!/usr/bin/env python3
"""StartTask -> `Connected`: a real agent at a real controller, with the JVM's defaults, our flags, our archive.

scripts/bench runs this for `connect` (tests/bench/connect.cc). The times are those of the driver's own start
event: from StartTask's arrival in the plugin to the agent's word. The variants are alternated.
"""
import argparse
import os
import pathlib
import signal
import statistics
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
# pylint: disable=wrong-import-position
import cluster
from cluster import Controller, NomadAgent, Scratch
from nomad import figure

WARM_UPS = 1
NODE = "linux-1"
TARGET_MS, DEFAULTS_TARGET_MS, RATIO = 500, 1000, 1.5
# What HotSpot chooses by itself with the task's memory and two cores.
JVM_DEFAULTS = ["-XX:+UseG1GC", "-Xss1m", "-XX:MaxRAMPercentage=25", "-XX:TieredStopAtLevel=4", "-XX:+UsePerfData",
                "-XX:-ExitOnOutOfMemoryError"]
# variant: (jvm_options, class_data_sharing)
VARIANTS = {"JVM defaults": (JVM_DEFAULTS, False), "our flags": ([], False), "flags and archive": ([], True)}
PARTS = ("sandbox", "jar", "locating", "handshaking", "connected")
JOB = """
job "%(job)s" {
  type = "service"
  group "g" {
    task "agent" {
      driver = "jenkins-agent"
      config {
        agent {
          url  = "%(url)s"
          name = "%(node)s"
        }
        class_data_sharing = %(sharing)s
        jvm_options        = [%(options)s]
      }
      env {
        JENKINS_SECRET = "%(secret)s"
      }
      kill_timeout = "5s"
      resources {
        cpu    = 500
        memory = 2048
      }
    }
  }
}
"""


def start(nomad, controller, variant):
    """One agent, from its job to its end; the reached times of its start in ms."""
    options, sharing = VARIANTS[variant]
    job = variant.replace(" ", "-").lower()
    nomad.run_job_text(JOB % {"job": job, "url": controller.url, "node": NODE, "secret": controller.secret,
                              "sharing": "true" if sharing else "false",
                              "options": ", ".join(f'"{option}"' for option in options)})
    allocation = nomad.allocation(job)
    details = nomad.wait_event(allocation, "agent connected after", 60)["Details"]
    if sharing:
        cluster.wait_for("an archive", lambda: list(nomad.state.glob("cds/*/*.jsa")), 120)
    nomad.stop_job(job)
    cluster.wait_for("the sandbox to end", lambda: not cluster.sandboxed_processes(), 20)
    cluster.wait_for("the controller to see it", lambda: not controller.online(NODE), 20)
    return {part: float(details[f"{part}_ms"]) for part in PARTS}


def durations(sample):
    """Of each part, from the times at which they were over."""
    before = 0
    for part in PARTS:
        yield part, sample[part] - before
        before = sample[part]


def bench(runs):
    scratch = Scratch()
    controller = Controller(scratch, [NODE])
    nomad = NomadAgent(scratch, options='log_collection = "driver"')
    try:
        controller.start()
        nomad.start()
        samples = {variant: [] for variant in VARIANTS}
        for run in range(-WARM_UPS, runs):
            for variant, taken in samples.items():
                sample = start(nomad, controller, variant)
                if run >= 0:
                    taken.append(sample)
    finally:
        nomad.stop()
        controller.stop()
        cluster.remove_nomad_cgroups()
        scratch.remove()
    report(samples, f"n {runs}, load {os.getloadavg()[0]:.0f}")


def report(samples, conditions):
    total = {variant: statistics.median(sample["connected"] for sample in taken) for variant, taken in samples.items()}
    ours, flags, defaults = total["flags and archive"], total["our flags"], total["JVM defaults"]
    figure("connect_median_ms", f"flags and archive, {conditions}", ours, target=f"<= {TARGET_MS}",
           met=ours <= TARGET_MS)
    figure("connect_median_ms", f"flags and archive, {conditions}", ours, "JVM defaults", defaults,
           f"ratio >= {RATIO}", defaults >= RATIO * ours)
    figure("connect_median_ms", f"our flags alone, {conditions}", flags, "JVM defaults", defaults,
           f"<= {DEFAULTS_TARGET_MS}", flags <= DEFAULTS_TARGET_MS)
    figure("connect_archive_saves_ms", conditions, flags - ours)
    for part in PARTS:
        medians = {variant: statistics.median(dict(durations(sample))[part] for sample in taken)
                   for variant, taken in samples.items()}
        figure(f"connect_part_{part}_ms", f"flags and archive, {conditions}", medians["flags and archive"],
               "JVM defaults", medians["JVM defaults"])


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=10)
    options = arguments.parse_args()
    cluster.require()
    cluster.enter_private_network()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as Ctrl-C: clean up
    bench(options.runs)


if __name__ == "__main__":
    main()
