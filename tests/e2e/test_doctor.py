#!/usr/bin/env python3
"""`doctor` beside a real Nomad with the driver and a real controller, and when one of them is not in order."""
import json
import subprocess
import unittest

import cluster
from fixtures import module_controller, module_nomad, module_scratch
from machine import DRIVER, DRIVER_FILE


def setUpModule():
    global nomad, controller
    scratch = module_scratch()
    controller = module_controller(scratch, ["linux-1"])
    controller.launch()
    nomad = module_nomad(scratch)
    controller.wait_ready()


def doctor(*arguments):
    """Its exit code, and its checks by name."""
    run = subprocess.run([str(DRIVER), "doctor", "--json", *arguments], env=nomad.environment(), text=True,
                         capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False)
    try:
        answer = json.loads(run.stdout)
    except json.JSONDecodeError:
        raise AssertionError(f"exit {run.returncode}\n{run.stdout}{run.stderr}") from None
    return run.returncode, {check["name"]: check for check in answer["checks"]}


class DoctorTest(unittest.TestCase):
    def test_1_all_is_in_order(self):
        before = cluster.our_processes()
        code, checks = doctor("--controller", controller.url)
        failed = [check for check in checks.values() if check["result"] == "fail"]
        self.assertEqual((code, failed), (0, []))
        for name in ("trial sandbox", "controller", "nomad agent", "plugin file", "driver", "node", "cgroup mode",
                     "right node:read", "right namespace:read-job"):
            self.assertEqual(checks[name]["result"], "ok", checks[name])
        self.assertIn("accepts connections", checks["controller"]["found"])
        # Nomad's configuration says which state directory it is, and the plugin that owns it is there.
        self.assertIn(str(nomad.state), checks["state directory"]["found"])
        self.assertIn(f"plugin with pid {nomad.plugin_pid()}", checks["state directory"]["found"])
        self.assertEqual(cluster.our_processes(), before, "what the trial left")

    def test_2_a_plugin_file_that_is_gone_and_a_closed_port(self):
        file = nomad.plugins / DRIVER_FILE
        file.rename(nomad.plugins / "elsewhere")
        try:
            code, checks = doctor("--no-trial", "--controller", "http://127.0.0.1:1/")
        finally:
            (nomad.plugins / "elsewhere").rename(file)
        self.assertEqual(code, 2)
        self.assertEqual(checks["plugin file"]["result"], "fail")
        self.assertIn("copy the file into plugin_dir", checks["plugin file"]["fix"])
        self.assertIn("Connection refused", checks["controller"]["found"])
        self.assertNotIn("trial sandbox", checks)


if __name__ == "__main__":
    cluster.main()
