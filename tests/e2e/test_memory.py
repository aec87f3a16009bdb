#!/usr/bin/env python3
"""Memory that is used up: by the agent's heap, by its JVM, by a build. Three causes, three sentences."""
import unittest

import cluster
from fixtures import module_controller, module_nomad, module_scratch, run_program

NODES = ["heap", "limit", "build"]
CONFIG = """agent {
  url  = "%s"
  name = "%s"
}
health {
  restart {
    attempts = 0
  }
}
jvm_options = [%s]"""

# Each of them is smaller than the JVM; together they are more than the task may have.
SMALL_PROCESSES = r"""
set +x
for i in $(seq 100); do test $(cat /proc/self/oom_score_adj) = 500 && break; sleep 0.1; done
echo "own=$(cat /proc/self/oom_score_adj) jvm=$(cat /proc/$PPID/oom_score_adj)"
for i in $(seq 40); do
  python3 -c "import time; x = bytearray(b'x') * (8 << 20); time.sleep(5)" &
done
wait
"""


def setUpModule():
    global nomad, controller
    scratch = module_scratch()
    controller = module_controller(scratch, NODES)
    controller.launch()
    nomad = module_nomad(scratch)
    controller.wait_ready()


class MemoryTest(unittest.TestCase):
    def run_agent(self, node, memory, *jvm_options):
        options = ", ".join(f'"{option}"' for option in jvm_options)
        return run_program(self, nomad, node, CONFIG % (controller.url, node, options), "service", memory=memory,
                           lines=f'env {{\n JENKINS_SECRET = "{controller.secret}"\n }}')

    def ended(self, allocation):
        task = nomad.wait_task(allocation, "dead", 60)
        self.assertTrue(task["Failed"], nomad.story(allocation))
        return nomad.story(allocation)

    def test_heap_of_the_agent(self):
        allocation = self.run_agent("heap", 256, "-Xmx6m")
        controller.create_job("heap", "heap", "true")
        controller.trigger("heap")  # its classes are more than the heap holds
        story = self.ended(allocation)
        self.assertRegex(story, "the agent's JVM has used up its own memory .*; raise -Xmx in jvm_options")
        self.assertNotIn("the kernel killed", story)

    def test_jvm_beyond_the_tasks_limit(self):
        story = self.ended(self.run_agent("limit", 128, "-Xms300m", "-Xmx300m", "-XX:+AlwaysPreTouch"))
        self.assertRegex(story, r"out of memory: the kernel killed the agent's JVM \(pid \d+\); limit 128 MiB, "
                                r"peak 128 MiB")
        self.assertNotIn("used up its own memory", story)

    def test_build_is_killed_before_the_jvm(self):
        allocation = self.run_agent("build", 256)
        controller.wait_online("build")
        build = controller.build("build", "build", SMALL_PROCESSES)
        self.assertIn("own=500 jvm=0", build.console)
        nomad.wait_event(allocation, r"out of memory: the kernel killed .*python3 \(pid \d+\); limit 256 MiB, "
                                     r"peak \d+ MiB; the agent goes on", 30)
        self.assertEqual(build.result, "SUCCESS", build.console)
        self.assertEqual(nomad.task(allocation)["State"], "running", nomad.story(allocation))
        self.assertTrue(controller.online("build"))


if __name__ == "__main__":
    cluster.main()
