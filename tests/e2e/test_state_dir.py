#!/usr/bin/env python3
"""A state_dir that cannot be written when Nomad starts: the node says so, and is mended without a restart."""
import subprocess
import unittest

import cluster
from cluster import NomadAgent, wait_for
from fixtures import module_scratch, mount, program_job
from traces import remove_nomad_cgroups


class ReadOnlyStateTest(unittest.TestCase):
    def test_the_driver_is_unhealthy_with_the_reason_until_it_can_be_written(self):
        scratch = module_scratch()
        state = scratch.path / "state"
        state.mkdir()
        mount("-t", "tmpfs", "-o", "ro,size=64m", "own", str(state))
        self.addCleanup(subprocess.run, ["umount", "-l", str(state)], check=True)
        agent = NomadAgent(scratch, state=state)
        self.addCleanup(remove_nomad_cgroups)
        self.addCleanup(agent.stop)
        agent.driver, driver = "", agent.driver  # its health is not waited for
        agent.start()
        agent.driver = driver
        reason = f"state_dir {state} is on a read-only file system"
        wait_for("the reason", lambda: self.health(agent)["HealthDescription"] == reason, 60)
        health = self.health(agent)
        self.assertTrue(health["Detected"])
        self.assertFalse(health["Healthy"])
        plugin = agent.plugin_pid()
        mount("-o", "remount,rw", str(state))
        # Four looks on end, each 30 s after the other.
        wait_for("a healthy driver", lambda: self.health(agent)["Healthy"], 240)
        self.assertEqual(agent.plugin_pid(), plugin)
        agent.run_job_text(program_job("works", 'command = "/bin/true"'))
        self.assertFalse(agent.wait_task(agent.allocation("works"), "dead", 60)["Failed"])

    def health(self, agent):
        return agent.get(f"/v1/node/{agent.node}")["Drivers"].get("jenkins-agent", {"HealthDescription": "", "Healthy": False})


if __name__ == "__main__":
    cluster.main()
