#!/usr/bin/env python3
"""kill -9 of the Nomad agent, again and again, while agents run builds: nobody but Nomad notices.

RESTARTS and AGENTS say how often and beside how many builds; the soak has 20 and 10.
"""
import os
import signal
import unittest

import cluster
from cluster import Controller, NomadAgent, Scratch

RESTARTS = int(os.environ.get("RESTARTS", "2"))
AGENTS = int(os.environ.get("AGENTS", "3"))
NODES = [f"linux-{index}" for index in range(AGENTS)]


def setUpModule():
    global nomad, controller, allocations
    cluster.require()
    scratch = Scratch()
    unittest.addModuleCleanup(scratch.remove)
    controller = Controller(scratch, NODES)
    unittest.addModuleCleanup(controller.stop)
    controller.launch()
    nomad = NomadAgent(scratch, dev=False)
    unittest.addModuleCleanup(cluster.remove_nomad_cgroups)
    unittest.addModuleCleanup(nomad.stop)
    nomad.start()
    controller.wait_ready()
    nomad.put_variable(f"nomad/jobs/{cluster.EXAMPLE_JOB_ID}", {"secret": controller.secret})
    # The example, several times; ten of them would ask for more CPU than a small machine has.
    text = cluster.EXAMPLE_JOB.read_text().replace("cpu    = 1000", "cpu    = 100")
    nomad.run_job_text(text.replace('    task "agent" {', f'    count = {AGENTS}\n    task "agent" {{'),
                       url=controller.url, name="linux-${NOMAD_ALLOC_INDEX}")
    nomad.allocation(cluster.EXAMPLE_JOB_ID)
    found = nomad.get(f"/v1/job/{cluster.EXAMPLE_JOB_ID}/allocations")
    allocations = {f"linux-{each['Name'].rpartition('[')[2][:-1]}": each["ID"] for each in found}
    assert sorted(allocations) == sorted(NODES), allocations
    for node in NODES:
        controller.wait_online(node, 120)


def jvms():
    return sorted(pid for pid in cluster.sandboxed_processes()
                  if os.path.basename(cluster.executable(pid)) == "java")


def answers(allocation):
    """Whether the running agent has the task again and reaches into its sandbox.

    Not a signal: each one is an event, and Nomad keeps only the last ten.
    """
    return nomad.command("alloc", "exec", "-t=false", "-i=false", allocation, "/bin/echo", "here",
                         ok=(0, 1)) == "here\n"


class AgentRestartsTest(unittest.TestCase):
    def start_builds(self):
        for node in NODES:
            controller.create_job(node, node, "echo begun; until [ -e /local/go ]; do sleep 1; done; echo ended")
        numbers = {node: controller.trigger(node) for node in NODES}
        for node, number in numbers.items():
            controller.wait_console(node, number, "begun")
        return numbers

    def let_builds_end(self):
        for allocation in allocations.values():
            (nomad.data / "alloc" / allocation / cluster.EXAMPLE_TASK / "local/go").touch()

    def test_builds_survive_all_of_them(self):
        before, plugin = jvms(), nomad.plugin_pid()
        self.assertEqual(len(before), AGENTS, cluster.sandboxed_processes())
        numbers = self.start_builds()
        for restart in range(1, RESTARTS + 1):
            nomad.end(signal.SIGKILL)
            nomad.start()
            for allocation in allocations.values():
                cluster.wait_for(f"an answer from {allocation}", lambda a=allocation: answers(a), 30)
            self.assertEqual(jvms(), before, f"after restart {restart}")
            self.assertIn(plugin, cluster.our_processes(), f"after restart {restart}")
        self.let_builds_end()
        for node, number in numbers.items():
            build = controller.wait_build(node, number)
            self.assertEqual((build.result, build.node), ("SUCCESS", node), build.console + nomad.driver_log()[-4000:])
            self.assertIn("ended", build.console)
        self.assertEqual(jvms(), before)
        for allocation in allocations.values():
            self.assert_never_restarted(allocation)

    def assert_never_restarted(self, allocation):
        status = nomad.command("alloc", "status", allocation)
        self.assertRegex(status, r"Total Restarts\s+= 0\n")
        self.assertRegex(status, r"(?m)^\S+ +Started +Task started by client$", "the first event is still to be seen")
        for event in ("Restarting", "Restart Signaled", "Terminated", "Failed"):
            self.assertNotIn(event, status)


if __name__ == "__main__":
    cluster.main()
