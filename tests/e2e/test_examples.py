#!/usr/bin/env python3
"""The files of examples/, as they are, beside a real Nomad and a real controller."""
import json
import pathlib
import shutil
import subprocess
import unittest

import yaml

import cluster
from cluster import DRIVER, HttpError, wait_for
from fixtures import AnsweringServer, module_controller, module_nomad, module_scratch
from machine import ROOT

EXAMPLES = ROOT / "examples"
CNI = pathlib.Path("/usr/lib/cni")  # of Debian's containernetworking-plugins
CONTROLLER = "192.0.2.1"  # within the routes of egress.conflist; an address of this namespace's loopback device
ELSEWHERE = "198.51.100.1"  # not within them; here, too


def setUpModule():
    global nomad, controller, scratch
    scratch = module_scratch()
    for address in (CONTROLLER, ELSEWHERE):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    networks = scratch.path / "cni"
    networks.mkdir()
    shutil.copy(EXAMPLES / "egress.conflist", networks)
    controller = module_controller(scratch, ["linux-0", "linux-1", "linux-2"], listen="0.0.0.0")
    controller.launch()
    nomad = module_nomad(scratch, client=f'cni_path = "{CNI}"\n cni_config_dir = "{networks}"')
    controller.wait_ready()


def run_example(test, file, job, secrets, **variables):
    nomad.put_variable(f"nomad/jobs/{job}", secrets)
    nomad.run_job(EXAMPLES / file, url=controller.url, **variables)
    test.addCleanup(nomad.stop_job, job)


def wait_online(node, allocation, task="agent"):
    try:
        controller.wait_online(node)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{nomad.story(allocation, task)}\n"
                             f"{nomad.logs(allocation, 'stderr', task)}") from None


class JobFileTest(unittest.TestCase):
    def test_each_is_valid_and_planned(self):
        files = sorted(EXAMPLES.glob("*.nomad.hcl"))
        self.assertGreater(len(files), 4)
        for file in files:
            with self.subTest(file.name):
                nomad.command("job", "validate", file)
                self.assertIn("All tasks successfully allocated", nomad.command("job", "plan", file, ok=(0, 1)))

    def test_each_is_formatted(self):
        nomad.command("fmt", "-check", "-recursive", EXAMPLES)

    def test_each_has_a_row_in_the_list(self):
        text = (EXAMPLES / "README.md").read_text()
        for file in EXAMPLES.iterdir():
            if file.name != "README.md":
                self.assertIn(f"({file.name})", text)


class RunTest(unittest.TestCase):
    def test_pool(self):
        secrets = {f"linux-{i}": controller.secret for i in range(2)}
        run_example(self, "pool.nomad.hcl", "jenkins-pool", secrets, count=2)
        for index in range(2):
            wait_online(f"linux-{index}", nomad.allocation("jenkins-pool"))
        names = {a["Name"] for a in nomad.get("/v1/job/jenkins-pool/allocations")}
        self.assertEqual(names, {"jenkins-pool.agents[0]", "jenkins-pool.agents[1]"})

    def test_one_shot(self):
        controller.create_node("once")
        run_example(self, "one-shot.nomad.hcl", "jenkins-one-shot", {"secret": controller.secret}, name="once")
        allocation = nomad.allocation("jenkins-one-shot")
        wait_online("once", allocation)
        self.assertEqual(controller.build("one-shot", "once", "echo done").result, "SUCCESS")
        controller.delete_node("once")
        self.assertFalse(nomad.wait_task(allocation, "dead", 60)["Failed"], nomad.story(allocation))

    def test_on_demand(self):
        controller.create_node("demand")
        run_example(self, "on-demand.nomad.hcl", "jenkins-on-demand", {"demand": controller.secret})
        self.assertEqual(nomad.get("/v1/job/jenkins-on-demand/allocations"), [])
        nomad.command("job", "dispatch", "-detach", "-meta", "agent=demand", "jenkins-on-demand")
        dispatched = [job["ID"] for job in nomad.get("/v1/jobs") if job["ParentID"] == "jenkins-on-demand"]
        self.assertEqual(len(dispatched), 1)
        allocation = nomad.allocation(dispatched[0].replace("/", "%2F"))
        wait_online("demand", allocation)
        self.assertNotIn(controller.secret, json.dumps(nomad.get(f"/v1/allocation/{allocation}")))
        controller.delete_node("demand")
        self.assertFalse(nomad.wait_task(allocation, "dead", 60)["Failed"], nomad.story(allocation))

    def test_websocket_and_its_ca(self):
        # The controller of these tests has neither WebSockets nor https: this goes as far as the certificate.
        certificate = scratch.path / "jenkins.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                        "/CN=jenkins", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate, "-out",
                        scratch.path / "ca.pem"], check=True, capture_output=True)
        ca = (scratch.path / "ca.pem").read_text()
        certificate.write_text(certificate.read_text() + ca)
        nomad.put_variable("nomad/jobs/jenkins-websocket", {"secret": "0" * 64, "ca": ca})
        url = AnsweringServer(self, 503, tls=certificate).url
        nomad.run_job(EXAMPLES / "websocket-tls.nomad.hcl", url=url, name="linux-2")
        self.addCleanup(nomad.stop_job, "jenkins-websocket")
        event = nomad.wait_event(nomad.allocation("jenkins-websocket"), "waiting for the controller", 30)
        self.assertRegex(event["DisplayMessage"], f"{url}: [45]\\d\\d ")  # an answer, so the certificate was right

    @unittest.skipUnless((CNI / "bridge").exists() and shutil.which("iptables"),
                         "needs containernetworking-plugins and iptables (scripts/setup)")
    def test_egress(self):
        nomad.put_variable("nomad/jobs/jenkins-egress", {"secret": controller.secret})
        url = f"http://{CONTROLLER}:{controller.port}/"
        nomad.run_job(EXAMPLES / "egress.nomad.hcl", url=url, name="linux-2")
        self.addCleanup(nomad.stop_job, "jenkins-egress")
        wait_online("linux-2", nomad.allocation("jenkins-egress"))
        reach = f'reach() {{ bash -c "exec 3<>/dev/tcp/$1/{controller.port}" 2>&1 && echo "$1 answers"; }}\n'
        build = controller.build("egress", "linux-2", "set +e\n" + reach + f"""reach {CONTROLLER}
reach {ELSEWHERE}
ip route add default dev eth0 2>&1
reach {ELSEWHERE}
true""")
        print(build.console)
        self.assertIn(f"\n{CONTROLLER} answers", build.console)
        self.assertNotIn(f"\n{ELSEWHERE} answers", build.console)
        self.assertEqual(build.console.count("connect: Network is unreachable"), 2, build.console)


class NomadPlugin:
    """What the Jenkins plugin "nomad" asks of Nomad, and no more: no answer but the code is looked at.

    By its releases: `put_job` is how 0.7 (2021) starts a worker, the rest is of 0.10; it validates a template
    by a plan, has one in HCL parsed by Nomad, and asks for the workers of a prefix to prune them.
    """

    @staticmethod
    def fill(template, name, secret):
        return template.replace("%WORKER_NAME%", name).replace("%WORKER_SECRET%", secret)

    @staticmethod
    def send(method, path, text=None):
        return nomad.request(method, path, json.loads(text) if text else None)

    def put_job(self, template, name, secret):
        self.send("PUT", f"/v1/job/{name}?region=global", self.fill(template, name, secret))

    def put_jobs(self, template, name, secret):
        self.send("PUT", "/v1/jobs", self.fill(template, name, secret))

    def validate(self, template):
        self.send("POST", "/v1/job/validated/plan", self.fill(template, "validated", ""))

    def parse(self, text):
        return json.dumps({"Job": json.loads(nomad.request("POST", "/v1/jobs/parse", {"JobHCL": text}))})

    def stop(self, name):
        self.send("DELETE", f"/v1/job/{name}")

    def running(self, prefix):
        return [job["ID"] for job in nomad.get(f"/v1/jobs?prefix={prefix}") if job["Status"] == "running"]


class NomadPluginTest(unittest.TestCase):
    plugin = NomadPlugin()

    def template(self, name):
        return (EXAMPLES / name).read_text().replace("https://jenkins.example/", controller.url)

    def run_worker(self, put, template, task):
        """A worker's life: node made, job registered, online, a build, stopped, node removed."""
        name = f"jenkins-{task}"
        controller.create_node(name)
        self.addCleanup(lambda: nomad.stop_job(name))
        put(template, name, controller.secret)
        allocation = nomad.allocation(name)
        wait_online(name, allocation, task)
        build = controller.build(f"on-{name}", name, "echo on $NODE_NAME")
        self.assertEqual(build.result, "SUCCESS", build.console)
        self.assertIn(f"on {name}", build.console)
        self.assertEqual(self.plugin.running("jenkins-"), [name])
        self.plugin.stop(name)
        self.assertFalse(nomad.wait_task(allocation, "dead", 30, task)["Failed"], nomad.story(allocation, task))
        controller.delete_node(name)
        return nomad.story(allocation, task)

    def test_template_of_json(self):
        template = self.template("nomad-plugin.json")
        self.plugin.validate(template)
        self.assertIn("Driver: agent connected", self.run_worker(self.plugin.put_jobs, template, "jenkins-worker"))

    def test_template_of_hcl(self):
        text = (EXAMPLES / "jenkins-slave-taskgroup.nomad.hcl").read_text()
        begin, end = text.index("      template {"), text.index("      resources {")
        text = (text[:begin] + '      env {\n JENKINS_SECRET = "%WORKER_SECRET%"\n }\n' + text[end:]).replace(
            'job "jenkins-slave"', 'job "%WORKER_NAME%"').replace("var.name", '"%WORKER_NAME%"').replace(
                "var.url", f'"{controller.url}"')
        self.run_worker(self.plugin.put_jobs, self.plugin.parse(text[text.index('job "%'):]), "agent")

    def test_job_of_release_0_7(self):
        # The launcher of this controller has no -secret: the .jnlp file tells it the secret.
        job = json.loads(self.template("jenkins-slave-taskgroup.json"))
        config = job["Job"]["TaskGroups"][0]["Tasks"][0]["Config"]
        self.assertEqual(config["args"][2:], ["-secret", "%WORKER_SECRET%"])
        del config["args"][2:]
        config["java_version"] = "17"  # of 2015, it does not start on 24 and later
        self.run_worker(self.plugin.put_job, json.dumps(job), "jenkins-slave")

    def test_a_job_that_cannot_be_placed_is_explained(self):
        template = self.template("nomad-plugin.json").replace('"MemoryMB": 768', '"MemoryMB": 99000000')
        self.addCleanup(lambda: nomad.stop_job("jenkins-large"))
        self.plugin.put_jobs(template, "jenkins-large", controller.secret)
        wait_for("a blocked evaluation", lambda: any(
            e["Status"] == "blocked" for e in nomad.get("/v1/job/jenkins-large/evaluations")), 30)
        self.assertEqual(self.plugin.running("jenkins-"), [])  # all that the plugin could know
        run = subprocess.run([DRIVER, "explain", "jenkins-large"], env=nomad.environment(), text=True,
                             stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        self.assertEqual(run.returncode, 2, run.stderr)
        self.assertIn("Verdict: it never fits", run.stdout)
        self.assertNotIn(controller.secret, run.stdout)

    def test_a_template_that_is_wrong_is_refused_when_it_is_validated(self):
        with self.assertRaises(HttpError):
            self.plugin.validate(self.template("nomad-plugin.json").replace('"batch"', '"no-such-type"'))


class ControllerConfigurationTest(unittest.TestCase):
    """jenkins.yaml: no Jenkins is here that could load it, so what can be compared is."""

    @classmethod
    def setUpClass(cls):
        cls.jenkins = yaml.safe_load((EXAMPLES / "jenkins.yaml").read_text())["jenkins"]

    def test_its_nodes_are_those_of_the_pool(self):
        count = json.loads(nomad.command("job", "run", "-output", EXAMPLES / "pool.nomad.hcl"))[
            "Job"]["TaskGroups"][0]["Count"]
        nodes = [node["permanent"] for node in self.jenkins["nodes"]]
        self.assertEqual([node["name"] for node in nodes], [f"linux-{i}" for i in range(count)])
        self.assertEqual({node["remoteFS"] for node in nodes}, {"/local/agent"})  # the default of agent.root_dir

    def test_its_template_is_the_examples(self):
        template = self.jenkins["clouds"][0]["nomad"]["templates"][0]["jobTemplate"]
        self.assertIn("/nomad-plugin.json", template)


if __name__ == "__main__":
    cluster.main(hide=("/run", "/var/lib/cni") if pathlib.Path("/var/lib/cni").is_dir() else ("/run", "/var/lib"))
