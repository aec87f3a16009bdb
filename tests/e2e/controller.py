"""A real controller: Eclipse Hudson 3.3.2, the last ancestor of Jenkins on Maven Central.

Its agent speaks the same kind of inbound TCP protocol and runs on Java 17.
"""
import json
import os
import secrets
import subprocess
import urllib.parse

from machine import WAR, HttpError, Server, free_port, http, wait_for


class Build:
    def __init__(self, job, number, result, node, console):
        self.job, self.number, self.result, self.node, self.console = job, number, result, node, console


class Controller(Server):
    """Hudson 3.3.2, seeded by files: the secret is chosen by us and the same for every node."""

    STARTER = """
public final class Ctl {
  public static void main(String[] args) throws Exception {
    System.setProperty("java.version", "1.8.0");  // it takes "17" for a minor version and refuses
    org.eclipse.hudson.war.Executable.main(args);
  }
}
"""
    ARGUMENTS = """--add-opens java.base/java.util=ALL-UNNAMED
--add-opens java.base/java.lang.reflect=ALL-UNNAMED
--add-opens java.base/java.text=ALL-UNNAMED
--add-opens java.desktop/java.awt.font=ALL-UNNAMED
--add-opens java.base/java.lang=ALL-UNNAMED
--add-opens java.base/java.lang.ref=ALL-UNNAMED
-Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData
-DHUDSON_HOME={home} -Djava.io.tmpdir={home}/tmp -Duser.home={home}
-Djava.awt.headless=true -Dhudson.udp=0 {options}
-cp {war}:{classes} Ctl
--httpPort={http} --httpListenAddress={listen} --skipInitSetup
--updateServer=http://127.0.0.1:9/
"""
    NODE = """<slave><name>{name}</name><remoteFS>/local/agent</remoteFS><numExecutors>1</numExecutors>
<mode>NORMAL</mode><retentionStrategy class="hudson.slaves.RetentionStrategy$Always"/>
<launcher class="hudson.slaves.JNLPLauncher"/><label>{name}</label><nodeProperties/></slave>"""
    JOB = """<project><scm class="hudson.scm.NullSCM"/><assignedNode>{node}</assignedNode><canRoam>false</canRoam>
<builders><hudson.tasks.Shell><command>{script}</command></hudson.tasks.Shell></builders>
<publishers/><buildWrappers/></project>"""

    def __init__(self, scratch, nodes, options="", listen="127.0.0.1"):
        """options: more of its JVM, such as system properties. listen: where it serves HTTP (agents: anywhere)."""
        directory = scratch.path / "controller"
        directory.mkdir()
        super().__init__("controller", directory)
        self.options, self.listen = options, listen
        self.secret = secrets.token_hex(32)
        self.port, self.agent_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        (directory / "tmp").mkdir()
        (directory / "secret.key").write_text(self.secret)
        (directory / "hudson-security.xml").write_text(
            f"<hudsonSecurityManager><slaveAgentPort>{self.agent_port}</slaveAgentPort></hudsonSecurityManager>")
        # No executor of its own: every build runs on an agent.
        (directory / "config.xml").write_text(
            "<hudson><version>1.0</version><numExecutors>0</numExecutors><mode>NORMAL</mode><slaves>"
            + "".join(self.NODE.format(name=name) for name in nodes) + "</slaves></hudson>")

    def start(self):
        self.launch()
        self.wait_ready()
        return self

    def launch(self):
        classes = self.directory / "classes"
        if not classes.exists():
            classes.mkdir()
            (classes / "Ctl.java").write_text(self.STARTER)
            subprocess.run(["javac", "-J-XX:-UsePerfData", "-cp", WAR, "-d", classes, classes / "Ctl.java"],
                           check=True)
        arguments = self.directory / "ctl.args"
        arguments.write_text(self.ARGUMENTS.format(home=self.directory, war=WAR, classes=classes, http=self.port,
                                               options=self.options, listen=self.listen))
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8"}
        if "JAVA_HOME" in os.environ:
            environment["JAVA_HOME"] = os.environ["JAVA_HOME"]
        self.spawn(["java", f"@{arguments}"], environment)

    def wait_ready(self):
        def ready():
            self.must_live()
            if "Failed to initialize Hudson" in self.log_text():
                raise AssertionError(f"the controller could not start:\n{self.log_tail()}")
            try:
                return self.get("computer/api/json")
            except (OSError, HttpError):
                return None
        wait_for("the controller", ready, 90)

    def stop(self):
        self.end()

    # REST

    def get(self, path):
        return json.loads(http("GET", self.url + path))

    def post(self, path, body=b"", content_type=None):
        return http("POST", self.url + path, body, content_type)

    def online(self, node):
        try:
            return self.get(f"computer/{node}/api/json")["offline"] is False
        except HttpError:
            return False

    def wait_online(self, node, seconds=60):
        wait_for(f"node {node} to be online", lambda: self.online(node), seconds)

    def create_node(self, name):
        form = {"name": name, "nodeDescription": "", "numExecutors": "1", "remoteFS": "/local/agent",
                "labelString": name, "mode": "NORMAL", "type": "hudson.slaves.DumbSlave$DescriptorImpl",
                "retentionStrategy": {"stapler-class": "hudson.slaves.RetentionStrategy$Always"},
                "nodeProperties": {"stapler-class-bag": "true"},
                "launcher": {"stapler-class": "hudson.slaves.JNLPLauncher"}}
        self.post("computer/doCreateItem", urllib.parse.urlencode(
            {"name": name, "type": form["type"], "json": json.dumps(form)}).encode(),
            "application/x-www-form-urlencoded")

    def delete_node(self, name):
        """Its agent is disconnected at once."""
        self.post(f"computer/{name}/doDelete")

    def create_job(self, job, node, script):
        escaped = script.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        self.post(f"createItem?name={job}", self.JOB.format(node=node, script=escaped).encode(), "application/xml")

    def trigger(self, job):
        """Starts a build; returns its number."""
        number = self.get(f"job/{job}/api/json?tree=nextBuildNumber")["nextBuildNumber"]
        self.post(f"job/{job}/build?delay=0sec")
        return number

    def console(self, job, number):
        try:
            return http("GET", f"{self.url}job/{job}/{number}/consoleText")
        except HttpError:
            return ""  # still in the queue

    def wait_console(self, job, number, text, seconds=60):
        wait_for(f"'{text}' in the console of {job} #{number}", lambda: text in self.console(job, number), seconds)

    def wait_build(self, job, number, seconds=120):
        def done():
            try:
                state = self.get(f"job/{job}/{number}/api/json?tree=building,result,builtOn")
            except HttpError:
                return None
            return None if state["building"] else state
        state = wait_for(f"{job} #{number} to end", done, seconds)
        return Build(job, number, state["result"], state["builtOn"], self.console(job, number))

    def build(self, job, node, script, seconds=120):
        """Creates a job, runs it once, returns the build."""
        self.create_job(job, node, script)
        return self.wait_build(job, self.trigger(job), seconds)
