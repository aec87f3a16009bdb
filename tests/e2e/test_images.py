#!/usr/bin/env python3
"""Tasks on images that the node has: a program, an agent on the image's own JRE, an agent on the node's JDK."""
import os
import pathlib
import signal
import subprocess
import unittest

import cluster
from fixtures import module_controller, module_nomad, module_scratch, run_program, shell
from machine import wait_for
from traces import sandboxed_processes

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MAKE = ROOT / "examples/agent-image/local-image"
NODES = {"plain": "linux-1", "java": "linux-2"}
USERNS_NODE = "linux-3"
BUILD = r"""
set +x
id -un; readlink /proc/$PPID/exe
for i in 1 2 3 4 5 6 7 8 9; do test $(cat /proc/self/oom_score_adj) = 500 && break; sleep 0.1; done
echo "own=$(cat /proc/self/oom_score_adj) jvm=$(cat /proc/$PPID/oom_score_adj)"
"""


def jdk():
    """A JDK with jlink and its modules."""
    for home in sorted(pathlib.Path("/usr/lib/jvm").glob("*")):
        if (home / "bin/jlink").exists() and (home / "jmods").exists():
            return home
    raise unittest.SkipTest("needs a JDK with jmods (openjdk-17-jdk-headless)")


def setUpModule():
    global scratch, nomad, controller, images
    scratch = module_scratch()
    images = {name: scratch.path / f"image-{name}" for name in NODES}
    subprocess.run([MAKE, images["plain"]], check=True)
    subprocess.run([MAKE, "--java", jdk(), images["java"]], check=True)
    controller = module_controller(scratch, [*NODES.values(), USERNS_NODE])
    controller.launch()
    names = ", ".join(f'"oci:{path}"' for path in images.values())
    nomad = module_nomad(scratch, options=f"allow_privileged = true\n images {{\n pre_pull = [{names}]\n }}")
    wait_for("the images", lambda: all(nomad.kept_image(f"oci:{path}") for path in images.values()), 90)
    controller.wait_ready()


def jvm():
    """The pid of the only one in a sandbox."""
    (pid,) = [pid for pid, line in sandboxed_processes().items() if "/bin/java " in line]
    return pid


class ImageTest(unittest.TestCase):
    def output(self, name, config):
        allocation = run_program(self, nomad, name, config)
        task = nomad.wait_task(allocation, "dead", 60)
        self.assertFalse(task["Failed"], nomad.story(allocation) + nomad.logs(allocation, "stderr"))
        return allocation, nomad.logs(allocation, "stdout")

    def test_a_program_sees_the_image_and_its_own_directories(self):
        script = ("id -un; pwd; ls /usr; ls /usr/sbin/nologin 2>/dev/null; echo x > /home/jenkins/x && cat /home/jenkins/x; "
                  "touch /usr/x 2>/dev/null || echo closed; ls -d /local /secrets /alloc")
        allocation, output = self.output("program", f'image = "oci:{images["plain"]}"\n' + shell(script))
        self.assertEqual(output, "jenkins\n/local\nbin\nlib\nlib64\nsbin\nx\nclosed\n/alloc\n/local\n/secrets\n")
        self.assertIn(f"image oci:{images['plain']}: from cache; started in ", nomad.story(allocation))

    def test_a_read_only_root(self):
        _, output = self.output("read-only", f'image = "oci:{images["plain"]}"\n readonly_rootfs = true\n' + shell(
            "echo x > /home/jenkins/x; echo x > /tmp/x && cat /tmp/x"))
        self.assertEqual(output, "x\n")

    def test_a_bounded_root(self):
        image = f'image = "oci:{images["plain"]}"\n rootfs_size = 1048576\n'
        _, output = self.output("bounded", image + shell(
            "head -c 900000 /dev/zero > /home/jenkins/x && echo fits; head -c 900000 /dev/zero > /home/jenkins/y || echo full"))
        self.assertEqual(output, "fits\nfull\n")

    def test_a_privileged_one_has_the_hosts_devices(self):
        image = f'image = "oci:{images["plain"]}"\n'
        script = "find /dev -type b -o -type c | wc -l"
        _, output = self.output("usual", image + shell(script))
        _, privileged = self.output("privileged", image + "privileged = true\n" + shell(script))
        self.assertGreater(int(privileged), int(output))

    def test_exec_is_in_the_image(self):
        allocation = run_program(self, nomad, "exec", f'image = "oci:{images["plain"]}"\n' + shell("sleep 600"))
        nomad.wait_task(allocation, "running", 30)
        answer = nomad.command("alloc", "exec", "-t=false", "-i=false", allocation, "/bin/bash", "-c", "id -un; pwd; ls /usr")
        self.assertEqual(answer, "jenkins\n/local\nbin\nlib\nlib64\nsbin\n")

    def test_an_image_that_is_not_there_fails_the_task_with_its_name(self):
        allocation = run_program(self, nomad, "missing", 'image = "oci:/nowhere"\n' + shell("true"))
        wait_for("the failure", lambda: nomad.task(allocation)["Failed"], 30)
        self.assertIn("image oci:/nowhere: is not kept", nomad.story(allocation))

    def test_a_job_can_ask_for_a_node_with_its_image(self):
        digest = nomad.kept_image(f"oci:{images['plain']}")
        self.assertRegex(digest, "^[0-9a-f]{12}$")


class AgentTest(unittest.TestCase):
    def run_agent(self, image, node, options=""):
        job = f"agent-{node}"
        text = cluster.EXAMPLE_JOB.read_text().replace('"jenkins-slave"', f'"{job}"').replace(
            "nomad/jobs/jenkins-slave", f"nomad/jobs/{job}").replace(
            "      config {", f'      config {{\n        image = "oci:{images[image]}"\n        {options}', 1)
        nomad.put_variable(f"nomad/jobs/{job}", {"secret": controller.secret})
        nomad.run_job_text(text, url=controller.url, name=node)
        self.addCleanup(wait_for, "the sandbox to end", lambda: not sandboxed_processes(), 30)
        self.addCleanup(nomad.stop_job, job)
        allocation = nomad.allocation(job)
        nomad.wait_task(allocation, "running", 30)
        try:
            controller.wait_online(node)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{nomad.story(allocation)}\n{nomad.logs(allocation, 'stderr')}") from None
        controller.create_job(f"build-{node}", node, BUILD)
        console = self.build(node)
        self.assertIn("jenkins", console)
        self.assertIn("own=500 jvm=0", console)  # killed for memory before the JVM
        return console

    def build(self, node):
        job = f"build-{node}"
        build = controller.wait_build(job, controller.trigger(job), 60)
        self.assertEqual(build.result, "SUCCESS", build.console)
        return build.console

    def test_an_agent_runs_on_the_images_own_java(self):
        node = NODES["java"]
        health = 'health {\n wedge_timeout = "5s"\n }'
        self.assertIn("/opt/java/openjdk/bin/java", self.run_agent("java", node, health))
        plugin = nomad.plugin_pid()
        os.kill(plugin, signal.SIGKILL)
        wait_for("a new plugin process", lambda: nomad.plugin_pid() not in (None, plugin), 20)
        wait_for("it to know the task's JVM", lambda: "own=500 jvm=0" in self.build(node), 60)
        os.kill(jvm(), signal.SIGSTOP)
        nomad.wait_event(nomad.allocation(f"agent-{node}"), r"its process is stopped \(state T\).*restarting it in place", 60)
        self.assertIn("own=500 jvm=0", self.build(node))

    def test_an_agent_runs_on_the_nodes_java_when_the_image_has_none(self):
        self.assertIn("/usr/lib/jvm/", self.run_agent("plain", NODES["plain"]))

    def test_an_agent_in_a_user_namespace(self):
        self.assertIn("/opt/java/openjdk/bin/java", self.run_agent("java", USERNS_NODE, "userns = true"))
        owners = {os.stat(f"/proc/{pid}").st_uid for pid in sandboxed_processes()}
        self.assertEqual(owners, {0, 0x6FFE0000 + 1000})  # pid 1 and the JVM


if __name__ == "__main__":
    cluster.main()
