"""What the tests' modules share: servers that end with the module, and jobs of one program."""
import http.server
import ssl
import subprocess
import threading
import unittest

from controller import Controller
from machine import CACHE, Scratch, require, wait_for
from nomad_agent import NomadAgent
from traces import remove_nomad_cgroups, sandboxed_processes

AGENT_JAR = CACHE / "maven/hudson-remoting-3.0.3.jar"

JOB = """
job "%(job)s" {
  type = "%(kind)s"
  group "g" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "agent" {
      driver = "jenkins-agent"
      %(lines)s
      config {
        %(config)s
      }
      kill_timeout = "5s"
      resources {
        cpu    = 100
        memory = %(memory)d
      }
    }
  }
}
"""


def module_scratch():
    """For setUpModule: skips where the machine lacks something."""
    require()
    scratch = Scratch()
    unittest.addModuleCleanup(scratch.remove)
    return scratch


def module_controller(scratch, nodes, **options):
    """Not yet started. With Controller's options."""
    controller = Controller(scratch, nodes, **options)
    unittest.addModuleCleanup(controller.stop)
    return controller


def module_nomad(scratch, **options):
    """A running agent with NomadAgent's options."""
    nomad = NomadAgent(scratch, **options)
    unittest.addModuleCleanup(remove_nomad_cgroups)
    unittest.addModuleCleanup(nomad.stop)
    return nomad.start()


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def shell(script):
    """A `config` that runs a line of shell, without double quotes in it."""
    return f'command = "/bin/sh"\n args = ["-c", "{script}"]'


def program_job(name, config, kind="batch", lines="", memory=64):
    """A job of one task that is never restarted; `lines`: more of the task's block."""
    return JOB % {"job": name, "kind": kind, "config": config, "lines": lines, "memory": memory}


def run_program(test, nomad, name, config, *more, **options):
    """Runs the job until the end of `test`; its allocation."""
    nomad.run_job_text(program_job(name, config, *more, **options))
    test.addCleanup(_end_program, nomad, name)
    return nomad.allocation(name)


def _end_program(nomad, name):
    nomad.stop_job(name)
    wait_for("the sandbox to end", lambda: not sandboxed_processes(), 20)


class AnsweringServer:
    """Answers as no real controller would on demand; what it was asked is in `requests`.

    tls: a PEM file with certificate and key.
    """

    def __init__(self, test, status, agent_port=None, tls=None):
        outer = self
        self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                jar = self.path == "/jnlpJars/remoting.jar"
                found = jar or self.path == "/tcpSlaveAgentListener/"
                self.send_response(status if found else 404)
                if agent_port:
                    self.send_header("X-Hudson-JNLP-Port", str(agent_port))
                body = AGENT_JAR.read_bytes() if jar else b"<html>a page</html>"
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        test.addCleanup(self.server.server_close)
        test.addCleanup(self.server.shutdown)
