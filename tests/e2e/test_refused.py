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


AGENT = """agent {
  %s
}"""

# job: (config, the task's user, what its events must say)
REFUSED = {
    "unknown-option": ('command = "/bin/true"\n comand = "x"', "", ["comand"]),
    "unknown-agent-option": (AGENT % 'url = "http://127.0.0.1:1/"\n nmae = "n"', "", ["nmae"]),
    "wrong-type": ('command = "/bin/true"\n pids_limit = "many"', "", ["pids_limit", "number is required"]),
    "missing-url": (AGENT % 'name = "linux-1"', "", ["url"]),
    "bad-url": (AGENT % 'url = "jenkins.example"\n name = "linux-1"', "", ["agent.url", "jenkins.example"]),
    "two-programs": (AGENT % 'url = "http://127.0.0.1:1/"\n name = "n"' + '\n command = "/bin/true"', "",
                     ["agent", "command"]),
    "no-program": ("pids_limit = 100", "", ["agent", "JENKINS_URL"]),
    "missing-program": ('command = "/usr/bin/no-such-program"', "", ["no-such-program"]),
    "root": ('command = "/bin/true"', "root", ["allow_root"]),
    "unknown-user": ('command = "/bin/true"', "no-such-user", ["no-such-user"]),
    "io-weight": ('command = "/bin/true"\n io_weight = 1001', "", ["io_weight", "10 to 1000"]),
    "small-pids-limit": ('command = "/bin/true"\n pids_limit = 2', "", ["pids_limit"]),
}


class RefusedTest(unittest.TestCase):
    def test_every_refusal_names_its_option(self):
        # All at once: Nomad's log helper keeps each failed task for 4 s.
        for name, (config, user, _) in REFUSED.items():
            text = job(name, config)
            if user:
                text = text.replace('driver = "jenkins-agent"', f'driver = "jenkins-agent"\n user = "{user}"')
            nomad.run_job_text(text)
        for name, (_, _, words) in REFUSED.items():
            with self.subTest(name):
                allocation = nomad.allocation(name)
                task = nomad.wait_task(allocation, "dead", 60)
                story = nomad.story(allocation)
                self.assertTrue(task["Failed"], story)
                self.assertNotIn("Started", [event["Type"] for event in task["Events"]], story)
                for word in words:
                    self.assertIn(word, story)
        self.assertEqual(cluster.sandboxed_processes(), {})
        self.assertEqual(list((nomad.state / "tasks").glob("*")), [])


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
