#!/usr/bin/env python3
"""What may die while an agent works: the controller, the plugin, the Nomad agent, the JVM."""
import os
import signal
import time
import unittest

import cluster
from fixtures import module_controller, module_nomad, module_scratch

NODE = "linux-1"
EARLY_SECONDS = 30  # how long the agent waits for its controller

QUICK_RESTART = """
    restart {
      attempts = 3
      delay    = "1s"
      mode     = "fail"
    }
"""


def setUpModule():
    global nomad, controller, allocation, started
    scratch = module_scratch()
    controller = module_controller(scratch, [NODE])
    nomad = module_nomad(scratch, dev=False)
    nomad.put_variable(f"nomad/jobs/{cluster.EXAMPLE_JOB_ID}", {"secret": controller.secret})
    # The example, with Nomad's restart delay of 15 s shortened.
    nomad.run_job_text(cluster.EXAMPLE_JOB.read_text().replace('    task "agent" {', QUICK_RESTART + '    task "agent" {'),
                       url=controller.url, name=NODE)
    allocation = nomad.allocation(cluster.EXAMPLE_JOB_ID)
    nomad.wait_task(allocation, "running", 30)
    started = time.monotonic()


def jvm_pid():
    found = [pid for pid in cluster.sandboxed_processes()
             if os.path.basename(cluster.executable(pid)) == "java"]
    return found[0] if len(found) == 1 else None


def sandbox_init(pid):
    """The host's pid of the sandbox's pid 1, the JVM's parent."""
    return cluster.parent(pid)


class RecoveryTest(unittest.TestCase):
    """In this order: the first test starts the controller, the last one ends the job."""

    def start_build(self, job):
        controller.create_job(job, NODE, "echo begun; for i in 1 2 3 4 5 6; do sleep 1; echo tick $i; done; echo ended")
        number = controller.trigger(job)
        controller.wait_console(job, number, "begun")
        return number

    def assert_build_survived(self, job, number):
        build = controller.wait_build(job, number)
        self.assertEqual(build.result, "SUCCESS", build.console + nomad.driver_log()[-4000:])
        self.assertIn("ended", build.console)

    def events_with(self, text):
        return len([event for event in nomad.task(allocation)["Events"] if text in (event.get("DisplayMessage") or "")])

    def kill_jvm_amid_a_durable_step(self, job):
        """Returns when the agent is online again and the step's result is there, which it wrote once."""
        # The wrapper of a durable step: detached, in the JVM's process group, with its cookie; and a
        # process of the same build without one.
        controller.create_job(job, NODE, f"BUILD_ID=x JENKINS_SERVER_COOKIE=durable-1 "
                              f"nohup sh -c 'sleep 3; echo 7 >>/local/{job}' >/dev/null 2>&1 & "
                              "sleep 601 & echo begun; sleep 600")
        number = controller.trigger(job)
        controller.wait_console(job, number, "begun")
        jvm, init = jvm_pid(), sandbox_init(jvm_pid())
        killed = time.monotonic()
        os.kill(jvm, signal.SIGKILL)
        cluster.wait_for("a new JVM", lambda: jvm_pid() not in (None, jvm), 30)
        controller.wait_online(NODE)
        print(f"{job}: JVM killed -> online: {time.monotonic() - killed:.1f} s")
        self.assertEqual(sandbox_init(jvm_pid()), init, "another sandbox")
        result = nomad.data / "alloc" / allocation / "agent" / "local" / job
        cluster.wait_for("the durable step's result", result.exists, 20)
        self.assertEqual(result.read_text(), "7\n")
        self.assertFalse([line for line in cluster.sandboxed_processes().values() if "sleep 60" in line])

    def test_1_agent_waits_for_its_controller(self):
        # Not a wait for something: this is the time for which the controller is away.
        time.sleep(max(0, EARLY_SECONDS - (time.monotonic() - started)))
        self.assertEqual(nomad.task(allocation)["State"], "running", nomad.story(allocation))
        controller.start()
        controller.wait_online(NODE, 90)
        self.assertEqual(nomad.allocation(cluster.EXAMPLE_JOB_ID), allocation)
        self.assertEqual(nomad.task(allocation)["Restarts"], 0)
        self.assertEqual(self.events_with("waiting for the controller"), 1, nomad.story(allocation))
        self.assertEqual(self.events_with("restarting it"), 0, nomad.story(allocation))

    def test_2_plugin_dies_during_a_build(self):
        jvm, plugin = jvm_pid(), nomad.plugin_pid()
        self.assertTrue(jvm and plugin, cluster.our_processes())
        number = self.start_build("plugin-dies")
        os.kill(plugin, signal.SIGKILL)
        cluster.wait_for("a new plugin process", lambda: nomad.plugin_pid() not in (None, plugin), 20)
        self.assert_build_survived("plugin-dies", number)
        self.assertEqual(jvm_pid(), jvm)
        self.assertEqual(nomad.task(allocation)["State"], "running", nomad.story(allocation))

    def test_3_nomad_agent_restarts_during_a_build(self):
        jvm = jvm_pid()
        number = self.start_build("agent-restarts")
        nomad.end()
        nomad.start()
        self.assert_build_survived("agent-restarts", number)
        self.assertEqual(jvm_pid(), jvm)
        cluster.wait_for("Nomad to have the task again", lambda: nomad.task(allocation)["State"] == "running", 20)

    def test_4_killed_jvm_is_restarted_in_place_amid_a_durable_step(self):
        self.kill_jvm_amid_a_durable_step("durable")
        nomad.wait_event(allocation, "killed by signal 9.*restarting it in place", 20)
        self.assertEqual(nomad.task(allocation)["Restarts"], 0, nomad.story(allocation))
        build = controller.build("after-the-jvm", NODE, "echo fine")
        self.assertEqual(build.result, "SUCCESS", build.console)

    def test_5_the_same_while_the_plugin_is_dead(self):
        plugin = nomad.plugin_pid()
        nomad.send(signal.SIGSTOP)  # it would start another one at once
        try:
            os.kill(plugin, signal.SIGKILL)
            self.kill_jvm_amid_a_durable_step("durable-alone")
            self.assertIsNone(nomad.plugin_pid())
        finally:
            nomad.send(signal.SIGCONT)
        cluster.wait_for("a new plugin process", lambda: nomad.plugin_pid() not in (None, plugin), 30)
        build = controller.build("after-both", NODE, "echo fine")
        self.assertEqual(build.result, "SUCCESS", build.console)
        self.assertEqual(nomad.task(allocation)["State"], "running", nomad.story(allocation))
        self.assertEqual(nomad.task(allocation)["Restarts"], 0, nomad.story(allocation))

    def test_6_stop_is_seen_with_its_exit_code(self):
        nomad.stop_job(cluster.EXAMPLE_JOB_ID, purge=False)
        task = nomad.wait_task(allocation, "dead", 30)
        self.assertFalse(task["Failed"], nomad.story(allocation))
        details = nomad.wait_event(allocation, "^Terminated", 5)["Details"]
        self.assertEqual(details["exit_code"], "143", nomad.story(allocation))
        self.assertEqual(cluster.sandboxed_processes(), {})


if __name__ == "__main__":
    cluster.main()
