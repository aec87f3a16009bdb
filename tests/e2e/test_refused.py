#!/usr/bin/env python3
"""What cannot work is refused at once, in words that name the option; nothing keeps running."""
import unittest

import cluster
from fixtures import module_controller, module_nomad, module_scratch, program_job

NODE = "linux-1"


def setUpModule():
    global nomad, controller
    scratch = module_scratch()
    controller = module_controller(scratch, [NODE])
    controller.launch()
    nomad = module_nomad(scratch)
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
    "privileged": ('command = "/bin/true"\n privileged = true', "", ["privileged", "allow_privileged"]),
    "host-path": ('command = "/bin/true"\n mount {\n type = "bind"\n source = "/etc"\n target = "/x"\n }', "",
                  ["mount[0]", "/etc", "allow_host_paths"]),
    "io-weight": ('command = "/bin/true"\n io_weight = 1001', "", ["io_weight", "10 to 1000"]),
    "small-pids-limit": ('command = "/bin/true"\n pids_limit = 2', "", ["pids_limit"]),
}


class RefusedTest(unittest.TestCase):
    def test_every_refusal_names_its_option(self):
        # All at once: Nomad's log helper keeps each failed task for 4 s.
        for name, (config, user, _) in REFUSED.items():
            nomad.run_job_text(program_job(name, config, lines=f'user = "{user}"'))
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
        nomad.run_job_text(program_job("wrong-secret", AGENT % f'url = "{controller.url}"\n name = "{NODE}"',
                                       lines=f'env {{\n JENKINS_SECRET = "{wrong}"\n }}', memory=512))
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
