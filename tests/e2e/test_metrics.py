#!/usr/bin/env python3
"""A real Prometheus scrapes the driver while a real agent starts, is killed, comes back and stops."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import unittest
import urllib.parse

import cluster
from fixtures import module_controller, module_nomad, module_scratch, program_job
from machine import CACHE, ROOT, Server, free_port, http, wait_for

NODE = "linux-1"
EXAMPLES = ROOT / "examples"
AGENT = """
agent {
  url  = "%s"
  name = "%s"
}
"""


def tool(name):
    """prometheus or promtool; None where there is none."""
    return shutil.which(name) or next((str(path) for path in [CACHE / "prometheus/usr/bin" / name] if path.exists()), None)


class Prometheus(Server):
    """Scrapes one address each second, and evaluates the alerts."""

    def __init__(self, scratch, target):
        directory = scratch.path / "prometheus"
        directory.mkdir()
        super().__init__("prometheus", directory)
        self.address = f"127.0.0.1:{free_port()}"
        (directory / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n"
            f"rule_files: ['{EXAMPLES / 'prometheus-alerts.yml'}']\n"
            f"scrape_configs: [{{job_name: agents, static_configs: [{{targets: ['{target}']}}]}}]\n")

    def start(self):
        self.spawn([tool("prometheus"), f"--config.file={self.directory}/prometheus.yml",
                    f"--storage.tsdb.path={self.directory}/data", f"--web.listen-address={self.address}"],
                   {"PATH": os.environ["PATH"]})
        wait_for("Prometheus", self._ready, 60)
        return self

    def _ready(self):
        self.must_live()
        try:
            return http("GET", f"http://{self.address}/-/ready")
        except (OSError, cluster.HttpError):
            return None

    def query(self, expression):
        """The values of an instant query, by their labels without job and instance."""
        text = http("GET", f"http://{self.address}/api/v1/query?query={urllib.parse.quote(expression)}")
        answer = json.loads(text)
        assert answer["status"] == "success", answer
        return {tuple(v for k, v in sorted(row["metric"].items()) if k not in ("__name__", "job", "instance")):
                float(row["value"][1]) for row in answer["data"]["result"]}

    def wait(self, expression, wanted, seconds=30):
        wait_for(f"{expression} = {wanted}", lambda: self.query(expression) == wanted, seconds)


def setUpModule():
    global nomad, controller, prometheus, port
    scratch = module_scratch()
    if not tool("prometheus"):
        raise unittest.SkipTest("needs prometheus (scripts/setup)")
    port = free_port()
    controller = module_controller(scratch, [NODE])
    controller.launch()
    rootfs = scratch.path / "rootfs"
    rootfs.mkdir()
    (rootfs / "file").write_text("x" * 5000)
    nomad = module_nomad(scratch, options='metrics {\n listen = "%d"\n }\nimages {\n pre_pull = ["rootfs:%s"]\n }' %
                         (port, rootfs))
    prometheus = Prometheus(scratch, f"127.0.0.1:{port}")
    unittest.addModuleCleanup(prometheus.end)
    prometheus.start()
    controller.wait_ready()


def expressions():
    """Every query of the dashboard, with Grafana's variables filled in."""
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$instance", ".*").replace("$__rate_interval", "5m")


class MetricsTest(unittest.TestCase):
    def test_1_three_launches_of_the_plugin_serve_one_page(self):
        prometheus.wait("jenkins_agent_up", {(): 1.0})
        self.assertEqual(nomad.driver_log().count("metrics are served"), 1, nomad.driver_log())
        self.assertNotIn("metrics are not served", nomad.driver_log())

    def test_1_an_image_fetched_in_advance_is_counted(self):
        prometheus.wait('jenkins_agent_image_pulls_total > 0', {("pulled",): 1.0})
        prometheus.wait("jenkins_agent_images", {(): 1.0})
        prometheus.wait("jenkins_agent_image_pull_seconds_count", {(): 1.0})
        self.assertGreater(prometheus.query("jenkins_agent_image_store_bytes")[()], 5000)

    def test_2_follows_an_agent(self):
        nomad.run_job_text(program_job(NODE, AGENT % (controller.url, NODE), "service", memory=512,
                                       lines='env {\n JENKINS_SECRET = "%s"\n }' % controller.secret))
        allocation = nomad.allocation(NODE)
        nomad.wait_task(allocation, "running", 30)
        controller.wait_online(NODE)
        prometheus.wait('jenkins_agent_agents{phase="connected"}', {("connected",): 1.0})
        prometheus.wait("sum(jenkins_agent_agents)", {(): 1.0})
        prometheus.wait("jenkins_agent_agent_start_seconds_count{phase='handshake'}", {("handshake",): 1.0})
        self.assertGreater(prometheus.query("jenkins_agent_agent_start_seconds_sum{phase='handshake'}")[("handshake",)], 0)
        self.assertGreater(prometheus.query("jenkins_agent_memory_bytes")[()], 20 << 20)
        self.assertEqual(prometheus.query("jenkins_agent_memory_limit_bytes")[()], 512 << 20)
        self.assertGreater(prometheus.query("jenkins_agent_threads")[()], 5)
        self.assertEqual(prometheus.query("jenkins_agent_threads_limit")[()], 2048)

    def test_3_a_killed_jvm_is_a_restart_with_its_reason(self):
        jvm = [pid for pid in cluster.sandboxed_processes() if os.path.basename(cluster.executable(pid)) == "java"]
        os.kill(jvm[0], signal.SIGKILL)
        prometheus.wait("jenkins_agent_restarts_total > 0", {("died",): 1.0})
        controller.wait_online(NODE)
        prometheus.wait('jenkins_agent_agents{phase="connected"}', {("connected",): 1.0})

    def test_4_every_query_of_the_dashboard_has_data(self):
        # A histogram's quantile needs two scrapes with different counts: another start.
        nomad.run_job_text(program_job("short", 'command = "/bin/true"'))
        nomad.wait_task(nomad.allocation("short"), "dead", 30)
        # What a hard limit holds back is counted.
        nomad.run_job_text(program_job("busy", 'command = "/bin/sh"\n args = ["-c", "while :; do :; done"]\n '
                                       'cpu_hard_limit = true', "service"))
        nomad.wait_task(nomad.allocation("busy"), "running", 30)
        wait_for("a throttled task", lambda: prometheus.query("jenkins_agent_cpu_throttled_seconds_total")[()] > 0, 30)
        nomad.stop_job("busy")
        for title, expression in expressions():
            with self.subTest(title):
                wait_for(f"data for {expression}", lambda: prometheus.query(expression), 20)

    def test_5_alerts_are_rules_that_load(self):
        run = subprocess.run([tool("promtool"), "check", "rules", EXAMPLES / "prometheus-alerts.yml"],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        groups = json.loads(http("GET", f"http://{prometheus.address}/api/v1/rules"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertGreater(len(rules), 5)
        wait_for("every rule to be evaluated", lambda: all(
            rule["health"] == "ok" for group in
            json.loads(http("GET", f"http://{prometheus.address}/api/v1/rules"))["data"]["groups"]
            for rule in group["rules"]), 30)

    def test_6_no_series_names_a_job(self):
        page = http("GET", f"http://127.0.0.1:{port}/metrics")
        self.assertNotIn(NODE, page)
        self.assertNotIn(controller.secret, page)
        self.assertIsNone(re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", page))

    def test_7_a_stopped_agent_is_gone(self):
        nomad.stop_job(NODE)
        prometheus.wait("jenkins_agent_tasks", {(): 0.0})
        prometheus.wait('jenkins_agent_ends_total{result="stopped"}', {("stopped",): 2.0})  # busy's, too


if __name__ == "__main__":
    cluster.main()
