#!/usr/bin/env python3
"""An agent that does not get on: each cause is one line in an event. And what is fetched only once."""
import json
import shutil
import subprocess
import unittest
import urllib.error
import urllib.request

import cluster
from fixtures import AnsweringServer, module_controller, module_nomad, module_scratch, run_program
from machine import free_port

NODE = "linux-1"
CONFIG = 'agent {\n url = "%s"\n name = "%s"\n %s\n}'


def setUpModule():
    global nomad, controller, scratch
    scratch = module_scratch()
    controller = module_controller(scratch, [NODE])
    controller.launch()
    nomad = module_nomad(scratch)
    controller.wait_ready()


class WayToControllerTest(unittest.TestCase):
    def run_agent(self, job, url, name=NODE, more=""):
        return run_program(self, nomad, job, CONFIG % (url, name, more), "service", memory=256,
                           lines=f'env {{\n JENKINS_SECRET = "{controller.secret}"\n }}')

    def says(self, job, url, text, seconds=30, **options):
        """One line, and the task goes on; its allocation."""
        allocation = self.run_agent(job, url, **options)
        event = nomad.wait_event(allocation, text, seconds)
        self.assertNotIn("\n", event["DisplayMessage"])
        self.assertNotIn("html", event["DisplayMessage"])
        self.assertEqual(nomad.task(allocation)["State"], "running", nomad.story(allocation))
        self.assertEqual(nomad.task(allocation)["Restarts"], 0, nomad.story(allocation))
        return allocation

    def test_http_503(self):
        url = AnsweringServer(self, 503).url
        self.says("starting", url, f"waiting for the controller: {url}: 503 Service Unavailable")

    def test_unknown_host(self):
        self.says("unknown-host", "http://no-such-host.invalid:8080/",
                  "waiting for the controller: http://no-such-host.invalid:8080/: the host's name cannot be resolved")

    @unittest.skipUnless(shutil.which("openssl"), "needs openssl")
    def test_certificate_that_nobody_trusts(self):
        pem = scratch.path / "server.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=c",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", f"{pem}.crt"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(pem, "ab") as file:
            file.write((scratch.path / "server.pem.crt").read_bytes())
        url = AnsweringServer(self, 200, agent_port=1, tls=pem).url
        self.says("untrusted", url, f"waiting for the controller: {url}: its certificate is not trusted "
                                    r"\(self.signed certificate.*\); set agent.ca_file")

    def test_agent_port_that_is_closed(self):
        closed = free_port()
        url = AnsweringServer(self, 200, agent_port=closed).url
        self.says("port-closed", url, "agent not connected: the controller answers HTTP 200, but its agent port "
                                      rf"127.0.0.1:{closed} cannot be reached \(Connection refused\): "
                                      "open the port or set agent.tunnel", 60)

    def test_what_was_seen_on_the_way_ends_the_story(self):
        closed = free_port()
        url = AnsweringServer(self, 200, agent_port=closed).url
        config = CONFIG % (url, NODE, "") + '\nhealth {\n controller_grace = "20s"\n restart {\n attempts = 0\n }\n}'
        allocation = run_program(self, nomad, "port-stays-closed", config, "service", memory=256,
                                 lines='env {\n JENKINS_SECRET = "5ec2e7"\n }')
        nomad.wait_task(allocation, "dead", 90)
        nomad.wait_event(allocation, "^Terminated.*not connected although the controller has answered for .*but its agent "
                                     rf"port 127.0.0.1:{closed} cannot be reached \(Connection refused\)", 5)

    def test_unknown_name(self):
        self.says("unknown-name", controller.url, "refused: No such slave: nobody-1$", 60, name="nobody-1")

    def test_name_in_use_until_it_is_free(self):
        first = self.run_agent("first", controller.url)
        nomad.wait_event(first, "agent connected after", 60)
        second = self.says("second", controller.url, f"refused: {NODE} is already connected to this master", 60)
        nomad.stop_job("first")
        nomad.wait_event(second, "agent connected after", 60)

    def test_usage_error_with_exit_code_0(self):
        allocation = self.run_agent("usage", controller.url, more='extra_args = ["-bogus"]')
        task = nomad.wait_task(allocation, "dead", 60)
        self.assertTrue(task["Failed"], nomad.story(allocation))
        details = nomad.wait_event(allocation, "^Terminated", 5)["Details"]
        self.assertEqual(details["exit_message"], 'the agent did not accept its arguments: "-bogus" is not a valid option')
        self.assertEqual(details["exit_code"], "1")
        self.assertIn("[options...]", nomad.logs(allocation, "stderr"))

    def test_start_in_parts_and_what_is_asked_again(self):
        allocation = self.run_agent("parts", controller.url)
        event = nomad.wait_event(allocation, "agent connected after", 60)
        self.assertRegex(event["DisplayMessage"],
                         r"agent connected after \d+ ms: sandbox \d+, agent.jar \d+, JVM \d+, discovery \d+, "
                         r"handshake \d+ ms$")
        # What is kept beside the jar is what the real controller answers "unchanged" to.
        kept = [json.loads(path.read_text()) for path in nomad.state.glob("cache/agent/*.origin")]
        self.assertTrue(kept)
        self.assertTrue(any(self.unchanged(origin["last_modified"]) for origin in kept), kept)

    @staticmethod
    def unchanged(since):
        request = urllib.request.Request(f"{controller.url}jnlpJars/remoting.jar", headers={"If-Modified-Since": since})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20):
                return False
        except urllib.error.HTTPError as answer:
            return answer.code == 304


class ClassDataTest(unittest.TestCase):
    def test_the_second_agent_starts_with_an_archive(self):
        def run(job):
            allocation = run_program(self, nomad, job, CONFIG % (controller.url, NODE, ""), "service", memory=256,
                                     lines=f'env {{\n JENKINS_SECRET = "{controller.secret}"\n }}')
            nomad.wait_event(allocation, "agent connected after", 60)
            java = next(pid for pid, line in cluster.sandboxed_processes().items() if "@/run/jenkins-agent" in line)
            with open(f"/proc/{java}/maps", encoding="utf-8") as maps:
                return [line.split()[5] for line in maps if "agent.jsa" in line]

        run("first")
        cluster.wait_for("an archive", lambda: list(nomad.state.glob("cds/*/*.jsa")), 120)
        cluster.wait_for("its sandbox to end", lambda: len(list((nomad.state / "tasks").iterdir())) == 1, 20)
        nomad.stop_job("first")
        cluster.wait_for("the controller to see it", lambda: not controller.online(NODE), 20)
        self.assertIn("/run/jenkins-agent/jar/agent.jsa", run("second"))


if __name__ == "__main__":
    cluster.main()
