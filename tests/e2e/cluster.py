"""A real Nomad agent and a real controller in a private network namespace, for tests and the demo.

Everything lives in one Scratch directory and ends with it. Only the standard library is used.
"""
from controller import Build, Controller
from machine import (CACHE, DRIVER, ROOT, HttpError, Scratch, enter_private_network, exchange, http, main, missing,
                     require, wait_for)
from nomad_agent import EXAMPLE_TASK, NomadAgent
from traces import (Snapshot, command_line, cpu_quota, executable, leftovers, our_processes, parent, remove_nomad_cgroups,
                    sandboxed_processes)

EXAMPLE_JOB = ROOT / "examples/jenkins-slave-taskgroup.nomad.hcl"
EXAMPLE_JOB_ID = "jenkins-slave"

__all__ = ["Build", "CACHE", "Controller", "DRIVER", "EXAMPLE_JOB", "EXAMPLE_JOB_ID", "EXAMPLE_TASK", "HttpError",
           "NomadAgent", "ROOT", "Scratch", "Snapshot", "command_line", "cpu_quota", "enter_private_network", "exchange", "executable", "http",
           "leftovers", "main", "missing", "our_processes", "parent", "remove_nomad_cgroups", "require",
           "sandboxed_processes", "wait_for"]
