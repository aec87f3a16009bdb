#!/usr/bin/env python3
"""The Nomad agent dies while a task runs: alone, so that the plugin survives it, and with the plugin."""
import os
import signal
import unittest

import cluster
from fixtures import module_nomad, module_scratch, program_job

NAME = "survivor"


def setUpModule():
    global nomad, allocation
    nomad = module_nomad(module_scratch(), dev=False)
    nomad.run_job_text(program_job(NAME, 'command = "/bin/sleep"\n args = ["600"]', "service"))
    allocation = nomad.allocation(NAME)
    nomad.wait_task(allocation, "running", 30)


def sleeper():
    found = [pid for pid, line in cluster.sandboxed_processes().items() if "/bin/sleep 600" in line]
    return found[0] if len(found) == 1 else None


class AgentDeathTest(unittest.TestCase):
    def restart_and_compare(self, before):
        nomad.start()
        cluster.wait_for("Nomad to have the task again", lambda: nomad.task(allocation)["State"] == "running", 20)
        self.assertEqual(sleeper(), before, nomad.story(allocation))
        self.assertEqual(nomad.task(allocation)["Restarts"], 0, nomad.story(allocation))
        # The new agent's word reaches the process: it was not only left alone.
        nomad.command("alloc", "signal", "-s", "SIGCONT", allocation)

    def test_agent_is_killed(self):
        before, plugin = sleeper(), nomad.plugin_pid()
        self.assertTrue(before and plugin, cluster.our_processes())
        nomad.end(signal.SIGKILL)
        self.assertTrue(os.path.exists(f"/proc/{plugin}"), "the plugin did not survive its agent")
        self.restart_and_compare(before)
        self.assertIn(plugin, cluster.our_processes())

    def test_agent_and_plugin_are_killed_at_once(self):
        before = sleeper()
        plugins = [pid for pid in cluster.our_processes()
                   if cluster.executable(pid).startswith(str(nomad.plugins))]
        self.assertTrue(before and plugins, cluster.our_processes())
        nomad.send(signal.SIGKILL)
        for plugin in plugins:
            os.kill(plugin, signal.SIGKILL)
        nomad.end()
        self.restart_and_compare(before)

    def test_stop_after_all_that_is_seen(self):  # the last by name
        nomad.stop_job(NAME, purge=False)
        nomad.wait_task(allocation, "dead", 30)
        details = nomad.wait_event(allocation, "^Terminated", 5)["Details"]
        self.assertEqual(details["exit_code"], "143", nomad.story(allocation))
        self.assertEqual(cluster.sandboxed_processes(), {})


if __name__ == "__main__":
    cluster.main()
