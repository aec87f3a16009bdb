#!/usr/bin/env python3
"""The policies of examples/ beside a Nomad with ACLs, over TLS: what they are for works, and with one right less it does not.

`explain` with each of them, also through the API's unix socket that a task has.
"""
import json
import os
import subprocess
import unittest

import cluster
from cluster import DRIVER, HttpError, wait_for
from fixtures import module_nomad, module_scratch
from machine import ROOT, nomad_binary

EXAMPLES = ROOT / "examples"
NODE = """
  memory_total_mb = 4096
  reserved {
    memory = 96
  }
"""


def setUpModule():
    global nomad
    scratch = module_scratch()
    nomad = module_nomad(scratch, client=NODE, with_driver=False, acl=True, tls=make_certificates(scratch.path / "tls"))
    nomad.request("PUT", "/v1/namespace/other", {"Name": "other"})
    run("hold", 3000, "other")
    run("ask", 2000)


def make_certificates(directory):
    """By Nomad's own command: for server.global.nomad and 127.0.0.1."""
    directory.mkdir()
    for words in (["ca", "create"], ["cert", "create", "-server"]):
        subprocess.run([nomad_binary(), "tls", *words], cwd=directory, check=True, capture_output=True)
    for name, made in (("ca", "nomad-agent-ca.pem"), ("cert", "global-server-nomad.pem"),
                       ("key", "global-server-nomad-key.pem")):
        (directory / made).rename(directory / f"{name}.pem")
    return directory


def job(name, memory, namespace="default"):
    task = {"Name": "agent", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["3600"]},
            "Resources": {"CPU": 100, "MemoryMB": memory}}
    return {"ID": name, "Name": name, "Namespace": namespace, "Type": "batch", "Datacenters": ["*"],
            "TaskGroups": [{"Name": "g", "Tasks": [task], "RestartPolicy": {"Attempts": 0, "Mode": "fail"}}]}


def run(name, memory, namespace="default"):
    """Registers the job; waits until it runs or has to wait."""
    nomad.request("PUT", f"/v1/jobs?namespace={namespace}", {"Job": job(name, memory, namespace)})
    wait_for(f"{name} to run or wait", lambda: (
        any(e["Status"] == "blocked" for e in nomad.get(f"/v1/job/{name}/evaluations?namespace={namespace}")) or
        any(a["ClientStatus"] == "running"
            for a in nomad.get(f"/v1/job/{name}/allocations?namespace={namespace}"))), 30)


def policy(file, *without):
    """The text of an example, with some of its text taken out."""
    text = (EXAMPLES / file).read_text()
    for part in without:
        assert text.count(part) == 1, part
        text = text.replace(part, "")
    return text


class PolicyTest(unittest.TestCase):
    def token(self, rules):
        """The secret of a token that has this policy only."""
        name = self.id().rpartition(".")[2].replace("_", "-")
        nomad.request("PUT", f"/v1/acl/policy/{name}", {"Name": name, "Rules": rules})
        token = json.loads(nomad.request("PUT", "/v1/acl/token", {"Name": name, "Type": "client", "Policies": [name]}))
        self.addCleanup(nomad.request, "DELETE", f"/v1/acl/token/{token['AccessorID']}")
        return token["SecretID"]

    def ask(self, token, method, path, body=None):
        """The status of a request with this token, 200 for any success."""
        bootstrap, nomad.token = nomad.token, token
        try:
            nomad.request(method, path, body)
            return 200
        except HttpError as error:
            return error.status
        finally:
            nomad.token = bootstrap


def explain(token, *arguments, **environment):
    return subprocess.run([str(DRIVER), "explain", *arguments],
                          env={**nomad.environment(), "NOMAD_TOKEN": token, **environment}, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


class ExplainPolicyTest(PolicyTest):
    FILE = "acl-explain.policy.hcl"

    def explained(self, rules):
        """The JSON of `explain ask` with such a token."""
        done = explain(self.token(rules), "ask", "--json")
        self.assertEqual(done.returncode, 2, done.stderr)
        return json.loads(done.stdout)

    def memory(self, explained):
        figures = explained["groups"][0]["nodes"][0]["figures"]
        return next(f for f in figures if f["resource"] == "memory")

    def checks(self, explained):
        return {remedy["check"] for remedy in explained["groups"][0]["remedies"] if "tasks" in remedy.get("change", {})}

    def assertRefused(self, rules, *says):
        done = explain(self.token(rules), "ask")
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        for text in ("Permission denied", *says):
            self.assertIn(text, done.stderr)

    def test_with_all_of_it_everything_is_told_and_checked(self):
        explained = self.explained(policy(self.FILE))
        self.assertEqual(explained["warnings"], [])
        self.assertEqual(self.memory(explained)["short_by"], 1000)
        self.assertEqual(self.checks(explained), {"places"})
        self.assertEqual(explain(self.token(policy(self.FILE)), "--all-blocked").returncode, 2)

    def test_without_plan_job_remedies_are_unchecked(self):
        explained = self.explained(policy(self.FILE, ', "plan-job"'))
        self.assertEqual(self.memory(explained)["short_by"], 1000)
        self.assertNotIn("places", self.checks(explained))

    def test_without_other_namespaces_the_sum_is_said_to_be_incomplete(self):
        explained = self.explained(policy(self.FILE, 'namespace "*" {\n  capabilities = ["read-job"]\n}'))
        self.assertIn("namespaces that the token may not read", " ".join(explained["warnings"]))

    def test_without_operator_its_settings_are_said_to_be_unknown(self):
        explained = self.explained(policy(self.FILE, 'operator {\n  policy = "read"\n}'))
        self.assertIn("operator:read", " ".join(explained["warnings"]))

    def test_without_node_it_is_refused(self):
        self.assertRefused(policy(self.FILE, 'node {\n  policy = "read"\n}'), "node")

    def test_without_read_job_it_is_refused(self):
        self.assertRefused(policy(self.FILE, '"read-job", '))

    def test_it_changes_nothing(self):
        token = self.token(policy(self.FILE))
        self.assertEqual(self.ask(token, "PUT", "/v1/jobs", {"Job": job("x", 10)}), 403)
        self.assertEqual(self.ask(token, "DELETE", "/v1/job/ask"), 403)
        self.assertEqual(self.ask(token, "PUT", f"/v1/node/{nomad.node}/eligibility",
                                  {"NodeID": nomad.node, "Eligibility": "ineligible"}), 403)

    def test_through_the_unix_socket_of_a_task(self):
        allocation = nomad.get("/v1/job/hold/allocations?namespace=other")[0]["ID"]
        socket = nomad.data / "alloc" / allocation / "agent/secrets/api.sock"
        token = self.token(policy(self.FILE))
        done = explain(token, "ask", NOMAD_ADDR=f"unix://{socket}", NOMAD_CACERT="")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("Verdict: it does not fit now", done.stdout)
        refused = explain("", "ask", NOMAD_ADDR=f"unix://{socket}", NOMAD_CACERT="")
        self.assertEqual(refused.returncode, 1, refused.stdout)

    def test_certificates_are_checked(self):
        token = self.token(policy(self.FILE))
        named = explain(token, "ask", NOMAD_TLS_SERVER_NAME="server.global.nomad")
        self.assertEqual(named.returncode, 2, named.stderr)
        for environment in ({"NOMAD_CACERT": ""}, {"NOMAD_TLS_SERVER_NAME": "server.other.nomad"}):
            refused = explain(token, "ask", **environment)
            self.assertEqual((refused.returncode, refused.stdout), (1, ""))
            self.assertIn("(NOMAD_CACERT: who signed its certificate; NOMAD_TLS_SERVER_NAME: the name in it)", refused.stderr)
        plain = explain(token, "ask", NOMAD_ADDR=nomad.address.replace("https:", "http:"))
        self.assertIn("Client sent an HTTP request to an HTTPS server", plain.stderr)

    def test_no_token_and_a_wrong_one(self):
        for token in ("", "00000000-0000-0000-0000-000000000000"):
            refused = explain(token, "ask")
            self.assertEqual((refused.returncode, refused.stdout), (1, ""))
            if token:
                self.assertNotIn(token, refused.stderr)


class JenkinsPolicyTest(PolicyTest):
    FILE = "acl-jenkins.policy.hcl"

    def life(self, rules):
        """What the plugin's calls are answered: (register, list, stop)."""
        token = self.token(rules)
        self.addCleanup(nomad.stop_job, "jenkins-1")
        run("jenkins-1", 10)
        return (self.ask(token, "PUT", "/v1/jobs", {"Job": job("jenkins-1", 20)}),
                self.ask(token, "GET", "/v1/jobs?prefix=jenkins-"), self.ask(token, "DELETE", "/v1/job/jenkins-1"))

    def test_what_the_plugin_does(self):
        self.assertEqual(self.life(policy(self.FILE)), (200, 200, 200))

    def test_one_right_less(self):
        for right, answers in (('"register-job", ', (403, 200, 200)), ('"list-jobs", ', (200, 403, 200)),
                               (', "deregister-job"', (200, 200, 403))):
            with self.subTest(right):
                self.assertEqual(self.life(policy(self.FILE, right)), answers)

    def test_nothing_else(self):
        token = self.token(policy(self.FILE))
        for path in ("/v1/nodes", "/v1/job/ask", "/v1/var/nomad/jobs/ask", "/v1/agent/self", "/v1/jobs?namespace=other"):
            self.assertEqual(self.ask(token, "GET", path), 403, path)
        self.assertEqual(explain(token, "ask").returncode, 1)


class SecretsPolicyTest(PolicyTest):
    FILE = "acl-secrets.policy.hcl"
    PATH = "nomad/jobs/jenkins-secret"

    def put(self, token, path):
        return self.ask(token, "PUT", f"/v1/var/{path}", {"Path": path, "Items": {"secret": "s3cr3t"}})

    def test_it_stores_and_does_not_read(self):
        token = self.token(policy(self.FILE))
        self.assertEqual(self.put(token, self.PATH), 200)
        self.assertEqual(self.ask(token, "GET", "/v1/vars?prefix=nomad/jobs/"), 200)
        self.assertEqual(self.ask(token, "GET", f"/v1/var/{self.PATH}"), 403)
        self.assertEqual(self.put(token, "nomad/jobs/other"), 403)
        self.assertEqual(explain(token, "ask").returncode, 1)

    def test_without_write_it_does_not(self):
        self.assertEqual(self.put(self.token(policy(self.FILE, '"write", ')), self.PATH), 403)

    def test_the_job_reads_its_own_and_needs_no_policy(self):
        self.assertEqual(self.put(nomad.token, self.PATH), 200)
        for name, text in (("jenkins-secret", "s3cr3t"), ("jenkins-thief", "")):
            wanted = job(name, 10)
            wanted["TaskGroups"][0]["Tasks"][0]["Templates"] = [{
                "EmbeddedTmpl": '{{ with nomadVar "%s" }}{{ .secret }}{{ end }}' % self.PATH,
                "DestPath": "secrets/shown"}]
            nomad.request("PUT", "/v1/jobs", {"Job": wanted})
            self.addCleanup(nomad.stop_job, name)
            allocation = nomad.allocation(name)
            if text:
                nomad.wait_event(allocation, "Started", 30)
                self.assertEqual((nomad.data / "alloc" / allocation / "agent/secrets/shown").read_text(), text)
            else:
                nomad.wait_event(allocation, "Permission denied|Missing", 30)
                self.assertNotEqual(nomad.task(allocation)["State"], "running")


if __name__ == "__main__":
    cluster.main()
