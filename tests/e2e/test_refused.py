#!/usr/bin/env python3
"""What cannot work is refused at once, in words that name the option; nothing keeps running."""
import unittest

import cluster
from cluster import Controller, NomadAgent, Scratch
from test_sleep import job

NODE = "linux-1"


def setUpModule():
    global nomad, controller
    cluster.require()
    scratch = Scratch()
    unittest.addModuleCleanup(scratch.remove)
    controller = Controller(scratch, [NODE])
    unittest.addModuleCleanup(controller.stop)
    controller.launch()
    nomad = NomadAgent(scratch)
    unittest.addModuleCleanup(cluster.remove_nomad_cgroups)
    unittest.addModuleCleanup(nomad.stop)
    nomad.start()
    controller.wait_ready()


class RefusedTest(unittest.TestCase):
    def refused(self, name, config, *words, user=""):
        """Runs a job that must fail before its start; every word must be in its events."""
        text = job(name, config)
        if user:
            text = text.replace('driver = "jenkins-agent"', f'driver = "jenkins-agent"\n user = "{user}"')
        nomad.run_job_text(text)
        allocation = nomad.allocation(name)
        task = nomad.wait_task(allocation, "dead", 30)
        story = nomad.story(allocation)
        self.assertTrue(task["Failed"], story)
        self.assertNotIn("Started", [event["Type"] for event in task["Events"]], story)
        for word in words:
            self.assertIn(word, story)
        self.assertEqual(cluster.sandboxed_processes(), {})
        self.assertEqual(list((nomad.state / "tasks").glob("*")), [])

    def test_unknown_option(self):
        self.refused("unknown-option", 'command = "/bin/true"\n comand = "x"', "comand")

    def test_unknown_option_of_the_agent(self):
        self.refused("unknown-agent-option", 'agent {\n url = "http://127.0.0.1:1/"\n nmae = "n"\n }', "nmae")

    def test_wrong_type(self):
        self.refused("wrong-type", 'command = "/bin/true"\n pids_limit = "many"', "pids_limit", "number is required")

    def test_missing_url(self):
        self.refused("missing-url", f'agent {{\n name = "{NODE}"\n }}', "url")

    def test_bad_url(self):
        self.refused("bad-url", f'agent {{\n url = "jenkins.example"\n name = "{NODE}"\n }}', "agent.url", "jenkins.example")

    def test_agent_and_command(self):
        self.refused("two-programs", 'agent {\n url = "http://127.0.0.1:1/"\n name = "n"\n }\n command = "/bin/true"',
                     "agent", "command")

    def test_no_program(self):
        self.refused("no-program", "pids_limit = 100", "agent", "JENKINS_URL")

    def test_missing_program(self):
        self.refused("missing-program", 'command = "/usr/bin/no-such-program"', "no-such-program")

    def test_root(self):
        self.refused("root", 'command = "/bin/true"', "allow_root", user="root")

    def test_small_pids_limit(self):
        self.refused("pids", 'command = "/bin/true"\n pids_limit = 2', "pids_limit")


class WrongSecretTest(unittest.TestCase):
    def test_an_event_says_so_in_one_line(self):
        wrong = "0" * 64
        nomad.run_job_text(job("wrong-secret", f'agent {{\n url = "{controller.url}"\n name = "{NODE}"\n }}').replace(
            "kill_timeout", f'env {{\n JENKINS_SECRET = "{wrong}"\n }}\n kill_timeout').replace(
            "memory = 64", "memory = 512"))
        allocation = nomad.allocation("wrong-secret")
        event = nomad.wait_event(allocation, r"(?i)secret", 40)
        message = event["DisplayMessage"]
        self.assertNotIn("\n", message)
        self.assertNotIn(wrong, message)
        self.assertIn(NODE, nomad.story(allocation))
        nomad.wait_task(allocation, "dead", 40)
        self.assertEqual(cluster.sandboxed_processes(), {})


if __name__ == "__main__":
    cluster.main()
