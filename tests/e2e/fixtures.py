"""What the tests' modules share: servers that end with the module, and jobs of one program."""
import unittest

from controller import Controller
from machine import Scratch, require, wait_for
from nomad_agent import NomadAgent
from traces import remove_nomad_cgroups, sandboxed_processes

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
