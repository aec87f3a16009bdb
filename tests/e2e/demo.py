#!/usr/bin/env python3
"""The demo behind scripts/demo: an agent on the host's programs and one on an image, a build on each, nothing left behind."""
import os
import signal
import subprocess
import sys
import time

import cluster
from cluster import Controller, NomadAgent, Scratch, Snapshot

NODE = "linux-1"
IMAGE_NODE = "linux-2"
IMAGE_JOB = cluster.ROOT / "examples/image.nomad.hcl"
MAKE_IMAGE = cluster.ROOT / "examples/agent-image/local-image"
JOB = "hello"
SCRIPT = r"""echo "Hello from node $NODE_NAME, workspace $WORKSPACE"
echo "user $(id -un) ($(id -u)), capabilities $(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)"
echo "processes that this build can see: $(ls -d /proc/[0-9]* | wc -l)"
if (: > /etc/probe) 2>/dev/null; then echo "/etc is writable"; else echo "/etc is read-only"; fi
java -version 2>&1 | head -n1
"""
IMAGE_SCRIPT = r"""echo "Hello from node $NODE_NAME on an image: user $(id -un), programs: $(ls /usr/bin | wc -l)"
"""
PHASES = (("sandbox_ms", "sandbox stands"), ("jar_ms", "agent.jar is there"),
          ("launched_ms", "JVM is started"), ("connected_ms", "agent is connected"))

begin = time.monotonic()


def say(text):
    print(f"== {time.monotonic() - begin:5.1f} s  {text}", flush=True)


class Demo:
    def __init__(self):
        self.before = Snapshot()
        self.scratch = Scratch()
        self.image = self.scratch.path / "image"
        self.controller = Controller(self.scratch, [NODE, IMAGE_NODE])
        self.nomad = NomadAgent(self.scratch, options=f'images {{\n pre_pull = ["oci:{self.image}"]\n }}')

    def start(self):
        say(f"driver {cluster.DRIVER} ({cluster.DRIVER.stat().st_size / 2**20:.1f} MiB)")
        subprocess.run([MAKE_IMAGE, self.image], check=True)
        self.controller.launch()
        self.nomad.start()
        version = self.nomad.command("version").split("\n", 1)[0]
        say(f"{version} is ready at {self.nomad.address}, driver jenkins-agent healthy")
        self.controller.wait_ready()
        say(f"the controller is ready at {self.controller.url}")

    def run_builds(self):
        """True when both succeeded."""
        allocation = self.run_agent(cluster.EXAMPLE_JOB, cluster.EXAMPLE_JOB_ID, NODE)
        self.print_phases(allocation)
        built = self.build(JOB, NODE, SCRIPT)
        cluster.wait_for("the image", lambda: self.nomad.kept_image(f"oci:{self.image}"), 90)
        allocation = self.run_agent(IMAGE_JOB, "jenkins-image", IMAGE_NODE, image=f"oci:{self.image}")
        print(next(line for line in self.nomad.story(allocation).splitlines() if "from cache" in line), flush=True)
        return self.build(f"{JOB}-image", IMAGE_NODE, IMAGE_SCRIPT) and built

    def run_agent(self, file, job, node, **variables):
        """Submits the example; its allocation, when the agent is online."""
        nomad, controller = self.nomad, self.controller
        nomad.put_variable(f"nomad/jobs/{job}", {"secret": controller.secret})
        say(f"the agent's secret is in the Nomad variable nomad/jobs/{job}")
        nomad.run_job(file, url=controller.url, name=node, **variables)
        say(f"submitted {file.relative_to(cluster.ROOT)}")
        allocation = nomad.allocation(job)
        nomad.wait_task(allocation, "running", 60)
        try:
            controller.wait_online(node, 60)
        except AssertionError:
            print(nomad.story(allocation), nomad.logs(allocation, "stderr"), sep="\n", file=sys.stderr)
            raise
        say(f"agent {node} is online at the controller")
        return allocation

    def build(self, job, node, script):
        """True when it succeeded."""
        build = self.controller.build(job, node, script)
        say(f"console of build {job} #{build.number} on node {build.node}:")
        print(build.console.rstrip(), flush=True)
        return build.result == "SUCCESS"

    def print_phases(self, allocation):
        event = self.nomad.wait_event(allocation, r"^Driver: .*connected", 10)
        say("start-up of the agent, milliseconds since StartTask:")
        for key, text in PHASES:
            if key in event["Details"]:
                print(f"   {event['Details'][key]:>6}  {text}", flush=True)

    def stop(self):
        self.nomad.stop()
        self.controller.stop()
        self.scratch.remove()
        cluster.remove_nomad_cgroups()

    def left_nothing(self):
        left = cluster.leftovers(self.before)
        for kind, found in left.items():
            for each in found:
                print(f"   left behind: {kind}: {each}", flush=True)
        if not left:
            say("stopped; nothing is left behind: no process, mount, cgroup or file that was not there before")
        return not left

    def abort(self):
        """After a failure: ends what is there, keeps the directory."""
        for server in (self.nomad, self.controller):
            if server.alive():
                server.end()
        print(f"logs are kept in {self.scratch.path}", file=sys.stderr)


def run(demo):
    try:
        demo.start()
        return demo.run_builds()
    except BaseException:
        demo.abort()
        raise


def once():
    cluster.enter_private_network()
    demo = Demo()
    succeeded = run(demo)
    demo.stop()
    return 0 if demo.left_nothing() and succeeded else 1


def keep():
    """A process in the background owns the servers and ends them when it is told to."""
    reading, writing = os.pipe()
    owner = os.fork()
    if owner:
        os.close(writing)
        return 0 if os.read(reading, 1) == b"+" else 1
    os.setsid()
    os.close(reading)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    demo = Demo()
    succeeded = run(demo)
    say("left running:")
    print(f"   controller  {demo.controller.url}\n   Nomad       {demo.nomad.address}/ui/\n"
          f"   files       {demo.scratch.path}\n   stop with   kill {os.getpid()}", flush=True)
    os.write(writing, b"+" if succeeded else b"-")
    os.close(writing)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    demo.stop()
    say("stopped")
    return 0


def main():
    lacks = cluster.missing()
    if lacks:
        print(f"needs {', '.join(lacks)}", file=sys.stderr)
        return 1
    return keep() if "--keep" in sys.argv[1:] else once()


if __name__ == "__main__":
    sys.exit(main())
