#!/usr/bin/env python3
"""Tasks on images that the node has: a program, an agent on the image's own JRE, an agent on the node's JDK."""
import pathlib
import re
import subprocess
import unittest

import cluster
from fixtures import module_controller, module_nomad, module_scratch, run_program, shell
from machine import wait_for
from traces import sandboxed_processes

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MAKE = ROOT / "examples/agent-image/local-image"
NODES = {"plain": "linux-1", "java": "linux-2"}


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
    controller = module_controller(scratch, list(NODES.values()))
    controller.launch()
    names = ", ".join(f'"oci:{path}"' for path in images.values())
    nomad = module_nomad(scratch, options=f"images {{\n pre_pull = [{names}]\n }}")
    wait_for("the images", lambda: all(attribute(path) for path in images.values()), 90)
    controller.wait_ready()


def attribute(path):
    """What the node says of an image: "" when it does not have it."""
    node = nomad.get("/v1/node/" + nomad.get("/v1/nodes")[0]["ID"])
    key = "unique.driver.jenkins-agent.image." + re.sub(r"[^a-z0-9-]", "_", f"oci:{path}".lower())
    return node["Attributes"].get(key, "")


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

    def test_an_image_that_is_not_there_fails_the_task_with_its_name(self):
        allocation = run_program(self, nomad, "missing", 'image = "oci:/nowhere"\n' + shell("true"))
        wait_for("the failure", lambda: nomad.task(allocation)["Failed"], 30)
        self.assertIn("image oci:/nowhere: is not kept", nomad.story(allocation))

    def test_a_job_can_ask_for_a_node_with_its_image(self):
        digest = attribute(images["plain"])
        self.assertRegex(digest, "^[0-9a-f]{12}$")


class AgentTest(unittest.TestCase):
    def run_agent(self, image):
        node = NODES[image]
        job = f"agent-{image}"
        text = cluster.EXAMPLE_JOB.read_text().replace('"jenkins-slave"', f'"{job}"').replace(
            "nomad/jobs/jenkins-slave", f"nomad/jobs/{job}").replace(
            "      config {", f'      config {{\n        image = "oci:{images[image]}"', 1)
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
        build = controller.build(job, node, "id -un; readlink /proc/$PPID/exe; ls /usr/share 2>&1 | wc -l")
        self.assertEqual(build.result, "SUCCESS", build.console)
        self.assertIn("jenkins", build.console)
        return build.console

    def test_an_agent_runs_on_the_images_own_java(self):
        self.assertIn("/opt/java/openjdk/bin/java", self.run_agent("java"))

    def test_an_agent_runs_on_the_nodes_java_when_the_image_has_none(self):
        self.assertIn("/usr/lib/jvm/", self.run_agent("plain"))


if __name__ == "__main__":
    cluster.main()
