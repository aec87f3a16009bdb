#!/usr/bin/env python3
"""What a job may change about its sandbox, asked from inside; and what the operator did not allow."""
import os
import pathlib
import shutil
import unittest
import urllib.request

import cluster
from fixtures import module_nomad, module_scratch, program_job as job

CNI = pathlib.Path("/usr/lib/cni")  # of Debian's containernetworking-plugins


def setUpModule():
    global nomad, host
    scratch = module_scratch()
    host = scratch.path / "host"
    for name in ("open", "closed", "volume"):
        (host / name).mkdir(parents=True)
        (host / name / "file").write_text(f"{name}\n")
    (host / "open/out").symlink_to("../closed")
    nomad = module_nomad(
        scratch,
        options=f'allow_privileged = true\n allow_caps = ["net_raw", "chown", "mknod", "sys_admin"]\n allow_host_paths = ["{host}/open"]',
        client=f'cni_path = "{CNI}"\n host_volume "shared" {{\n path = "{host}/volume"\n }}')


def supervisors():
    """One for each sandbox, which ends with it; also for those with a network of their own."""
    return [pid for pid in cluster.our_processes() if name_of(pid) == "ja-supervisor"]


def name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended
        return ""


def can_open(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
        return True
    except OSError:  # not there, or kept from root by the host
        return False


def shell(script):
    return f'command = "/bin/sh"\n args = ["-c", <<EOT\n{script}\nEOT\n]\n'


class IsolationTest(unittest.TestCase):
    def run_job(self, name, text):
        nomad.run_job_text(text)
        self.addCleanup(nomad.stop_job, name)
        return nomad.allocation(name)

    def output(self, name, text):
        """What a job wrote that ended well."""
        allocation = self.run_job(name, text)
        task = nomad.wait_task(allocation, "dead", 60)
        story = nomad.story(allocation) + nomad.logs(allocation, "stderr")
        self.assertFalse(task["Failed"], story)
        self.assertEqual(supervisors(), [])
        return nomad.logs(allocation, "stdout")

    def test_a_job_with_everything(self):
        script = """
          hostname
          getent hosts db.example
          cat /open/file /shared/file
          touch /open/new 2>/dev/null || echo read-only
          echo x > /cache/made && cat /local/made
          stat -c '%a' /scratch; df --output=size -B1 /scratch /tmp /dev/shm | grep -v B | tr -d ' '
          ulimit -S -n; ulimit -H -n
          tr '\\t' ' ' < /proc/self/status | grep CapEff
          touch /local/file && chown 12345 /local/file && stat -c %u /local/file"""
        config = shell(script) + f"""
          hostname    = "builder"
          extra_hosts = ["db.example:10.1.2.3"]
          cap_add     = ["net_raw", "CAP_CHOWN"]
          tmp_size    = 1048576
          shm_size    = 2097152
          ulimit {{
            nofile = "200:300"
          }}
          mount {{
            type     = "bind"
            source   = "{host}/open"
            target   = "/open"
            readonly = true
          }}
          mount {{
            type   = "bind"
            source = "local"
            target = "/cache"
          }}
          mount {{
            type   = "tmpfs"
            target = "/scratch"
            tmpfs_options {{
              size = 4194304
              mode = 511
            }}
          }}"""
        text = job("everything", config).replace("kill_timeout", """volume_mount {
          volume           = "v"
          destination      = "/shared"
          propagation_mode = "host-to-task"
          read_only        = true
        }
        kill_timeout""", 1).replace('restart {', """volume "v" {
          type      = "host"
          source    = "shared"
          read_only = true
        }
        restart {""", 1)
        self.assertEqual(self.output("everything", text).split("\n"), [
            "builder", "10.1.2.3        db.example", "open", "volume", "read-only", "x",
            "777", "4194304", "1048576", "2097152", "200", "300", "CapEff: 0000000000002001", "12345", ""])

    def test_no_network(self):
        script = """
          ls /sys/class/net
          ip -o addr show 2>/dev/null | grep -c 'inet 127.0.0.1'
          cat /proc/net/route | wc -l"""
        self.assertEqual(self.output("no-network", job("no-network", shell(script) + 'network_mode = "none"')),
                         "lo\n1\n1\n")

    def test_privileged(self):
        script = """
          grep -o ' /sys rw' /proc/self/mountinfo
          grep -c ' /proc/kcore ' /proc/self/mountinfo
          ls /dev/kmsg
          exec python3 -c 'import ctypes; print(ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None))'"""
        self.assertEqual(self.output("privileged", job("privileged", shell(script) + "privileged = true")),
                         " /sys rw\n0\n/dev/kmsg\n0\n")

    def test_device_nodes_of_a_jobs_own(self):
        """sys_admin gets a task a file system with devices; its rules for devices keep the disk from it."""
        disk = next((disk for disk in ("/dev/loop0", "/dev/vda", "/dev/sda", "/dev/nvme0n1") if can_open(disk)), None)
        if disk is None:
            self.skipTest("needs a disk in /dev that root can open")
        number = os.stat(disk).st_rdev
        script = f"""
          python3 -c 'import ctypes; print(ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None))'
          mknod /tmp/disk b {os.major(number)} {os.minor(number)} && echo made
          head -c 1 /tmp/disk 2>&1"""
        config = shell(script + "\ntrue") + 'cap_add = ["mknod", "sys_admin"]'
        self.assertEqual(self.output("devices", job("devices", config)),
                         "0\nmade\nhead: cannot open '/tmp/disk' for reading: Operation not permitted\n")

    def test_a_user_namespace(self):
        script = """
          id -u
          cat /local/template
          touch /local/mine && stat -c %u /local/mine /usr/bin
          awk '{print $1, $3}' /proc/self/uid_map | head -n 1
          sleep 600"""
        text = job("userns", shell(script) + "userns = true", "service").replace("kill_timeout", """template {
          data        = "readable\\n"
          destination = "local/template"
        }
        kill_timeout""", 1)
        allocation = self.run_job("userns", text)
        nomad.wait_task(allocation, "running", 30)
        said = cluster.wait_for("the program's words", lambda: nomad.logs(allocation, "stdout").split("\n")[5:] and
                                nomad.logs(allocation, "stdout").split("\n"), 20)
        user = int(said[0])
        self.assertEqual(said, [str(user), "readable", str(user), "0", "0 65536", ""])
        self.assertEqual(nomad.command("alloc", "exec", "-t=false", "-i=false", allocation, "/usr/bin/id", "-u"),
                         f"{user}\n")
        made = nomad.data / "alloc" / allocation / "agent/local/mine"
        self.assertEqual(made.stat().st_uid, user)
        sleeping = [pid for pid, line in cluster.sandboxed_processes().items() if "sleep 600" in line]
        self.assertTrue(sleeping)
        for pid in sleeping:
            self.assertGreaterEqual(os.stat(f"/proc/{pid}").st_uid, 0x6FFE0000)

    def test_java_in_a_user_namespace(self):
        config = 'class = "Main"\n jvm_options = ["-version"]\n userns = true\n'
        allocation = self.run_job("userns-java", job("userns-java", config).replace("memory = 64", "memory = 256"))
        self.assertFalse(nomad.wait_task(allocation, "dead", 30)["Failed"], nomad.story(allocation))

    @unittest.skipUnless((CNI / "bridge").exists() and shutil.which("iptables"),
                         "needs containernetworking-plugins and iptables (scripts/setup)")
    def test_nomads_bridge(self):
        script = """
          cat /etc/resolv.conf
          ls /sys/class/net
          exec python3 -m http.server 8000 --directory /local"""
        text = job("bridge", shell(script), "service").replace("restart {", """network {
          mode = "bridge"
          dns {
            servers = ["10.9.8.7"]
          }
        }
        restart {""", 1).replace("kill_timeout", """template {
          data        = "hello from the bridge"
          destination = "local/hello"
        }
        kill_timeout""", 1)
        allocation = self.run_job("bridge", text)
        nomad.wait_task(allocation, "running", 60)
        address = nomad.get(f"/v1/allocation/{allocation}")["NetworkStatus"]["Address"]

        def hello():
            try:
                with urllib.request.urlopen(f"http://{address}:8000/hello", timeout=5) as answer:
                    return answer.read().decode()
            except OSError:
                return None
        self.assertEqual(cluster.wait_for("the server behind the bridge", hello, 30), "hello from the bridge")
        shown = nomad.logs(allocation, "stdout").split("\n")
        self.assertEqual(shown[0], "nameserver 10.9.8.7")
        self.assertEqual(shown[-3:], ["eth0", "lo", ""])
        nomad.stop_job("bridge")
        cluster.wait_for("the sandbox to end", lambda: not supervisors(), 20)

    # config: what its events must say
    REFUSED = {
        "closed-path": ('mount {{\n type = "bind"\n source = "{host}/closed"\n target = "/x"\n }}',
                        ["mount[0]", "allow_host_paths", "/closed"]),
        "link-out": ('mount {{\n type = "bind"\n source = "{host}/open/out"\n target = "/x"\n }}',
                     ["mount /x", "symbolic link"]),
        "nomads-own": ('mount {{\n type = "bind"\n source = "private"\n target = "/x"\n }}',
                       ["mount[0].source", "local/, secrets/ or alloc/"]),
        "missing-source": ('mount {{\n type = "bind"\n source = "local/none"\n target = "/x"\n }}',
                           ["mount /x", "No such file"]),
        "volume-type": ('mount {{\n type = "volume"\n target = "/x"\n }}', ["mount[0].type", "bind", "tmpfs"]),
        "hidden-secret": ('mount {{\n type = "tmpfs"\n target = "/run/jenkins-agent"\n }}', ["mount[0].target"]),
        "capability": ('cap_add = ["sys_module"]', ["cap_add", "sys_module", "allow_caps"]),
        "big-ulimit": ('ulimit {{\n nofile = "99999999999"\n }}', ["ulimit.nofile", "maximum"]),
        "big-tmp": ("tmp_size = 9007199254740992", ["tmp_size", "this host's memory"]),
        "network-mode": ('network_mode = "bridge"', ["network_mode", "none"]),
        "writable-rootfs": ("readonly_rootfs = false", ["readonly_rootfs"]),
    }

    def test_what_is_not_allowed_is_refused_by_name(self):
        # All at once: Nomad's log helper keeps each failed task for 4 s.
        for name, (config, _) in self.REFUSED.items():
            nomad.run_job_text(job(name, 'command = "/bin/true"\n' + config.format(host=host)))
            self.addCleanup(nomad.stop_job, name)
        for name, (_, words) in self.REFUSED.items():
            with self.subTest(name):
                allocation = nomad.allocation(name)
                task = nomad.wait_task(allocation, "dead", 60)
                story = nomad.story(allocation)
                self.assertTrue(task["Failed"], story)
                self.assertNotIn("Started", [event["Type"] for event in task["Events"]], story)
                for word in words:
                    self.assertIn(word, story)
        self.assertEqual(supervisors(), [])
        self.assertEqual(list((nomad.state / "tasks").glob("*")), [])


if __name__ == "__main__":
    # Where Nomad and the CNI programs leave network namespaces and addresses.
    cluster.main(hide=("/run", "/var/lib"))
