// A cgroup file system of plain files, written as a nested list and made in a temporary directory,
// with a /proc of its own that says where it is mounted (the idea of oomd's Fixture.h).
//
//   FakeHost host({Dir("memory", {Dir("nomad", {File("tasks")})})},
//                 {.mountinfo = "31 23 0:28 / @ rw - tmpfs tmpfs rw\n", .cgroup = "4:memory:/\n"});
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::cgroups {

struct Node {
  std::string name = {};
  bool is_directory = false;
  std::string content = {};
  std::vector<Node> children = {};
};

inline Node File(std::string name, std::string content = "") {
  return {.name = std::move(name), .content = std::move(content)};
}
inline Node Dir(std::string name, std::vector<Node> children = {}) {
  return {.name = std::move(name), .is_directory = true, .children = std::move(children)};
}

class FakeHost {
 public:
  struct Proc {
    std::string mountinfo;  // "@" stands for the cgroup root
    std::string cgroup;
  };

  FakeHost(const std::vector<Node>& tree, const Proc& proc) {
    const std::string mountinfo = absl::StrReplaceAll(proc.mountinfo, {{"@", cgroup_root()}});
    Make(temp_.path(),
         Dir("proc", {Dir("self", {File("mountinfo", mountinfo), File("cgroup", proc.cgroup)})}));
    Make(temp_.path(), Dir("cgroup", tree));
  }

  std::string proc_root() const { return temp_.path() + "/proc"; }
  std::string cgroup_root() const { return temp_.path() + "/cgroup"; }

  bool Exists(const std::string& path) const {
    struct stat found;
    return ::stat((cgroup_root() + "/" + path).c_str(), &found) == 0;
  }
  // Removes the files in an absolute directory.
  static void Empty(const std::string& dir) {
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      std::filesystem::remove(entry.path());
    }
  }
  std::string Read(const std::string& path) const {
    std::ifstream file(cgroup_root() + "/" + path);
    std::stringstream content;
    content << file.rdbuf();
    return content.str();
  }

 private:
  static void Make(const std::string& parent, const Node& node) {
    const std::string path = parent + "/" + node.name;
    if (!node.is_directory) {
      std::ofstream(path) << node.content;
      return;
    }
    ::mkdir(path.c_str(), 0755);
    for (const Node& child : node.children) Make(path, child);
  }

  TempDir temp_;
};

// --- the hosts that the tests start from -------------------------------------------------------

inline constexpr char kMountinfoV1[] =
    "23 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n"
    "31 23 0:28 / @ rw,relatime shared:9 - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / @/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "33 31 0:30 / @/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n"
    "34 31 0:31 / @/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
    "35 31 0:32 / @/memory rw,relatime - cgroup cgroup rw,memory\n"
    "36 31 0:33 / @/net_cls rw,relatime - cgroup cgroup rw,net_cls\n"
    "37 31 0:34 / @/freezer rw,relatime - cgroup cgroup rw,freezer\n"
    "38 31 0:35 / @/blkio rw,relatime - cgroup cgroup rw,blkio\n"
    "39 31 0:36 / @/pids rw,relatime - cgroup cgroup rw,pids\n"
    "40 31 0:37 / @/systemd rw,relatime - cgroup cgroup rw,name=systemd\n";
inline constexpr char kMountinfoUnified[] =
    "41 31 0:38 / @/unified rw,relatime - cgroup2 cgroup2 rw\n";
inline constexpr char kMountinfoV2[] =
    "23 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n"
    "31 23 0:28 / @ rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
inline constexpr char kProcCgroupV1[] =
    "9:name=systemd:/init\n8:pids:/\n6:freezer:/\n4:memory:/agent/1\n3:cpuset:/\n2:cpuacct:/\n"
    "1:cpu:/\n0::/\n";

// As Nomad leaves it before StartTask of the task "a1.web"; cpuacct and pids as after an earlier
// start, because plain files do not appear by themselves in a new directory.
inline std::vector<Node> NomadTreeV1(const std::string& shared_cores = "0-1\n") {
  const auto task = [](std::vector<Node> files) {
    files.push_back(File("tasks"));
    files.push_back(File("cgroup.procs"));
    return Dir("nomad", {Dir("a1.web", std::move(files))});
  };
  return {
      Dir("freezer", {File("tasks"), task({File("freezer.state")})}),
      Dir("memory",
          {File("tasks"), Dir("agent", {Dir("1", {File("tasks")})}),
           task({File("memory.limit_in_bytes"), File("memory.soft_limit_in_bytes"),
                 File("memory.swappiness"), File("memory.max_usage_in_bytes"),
                 File("memory.memsw.limit_in_bytes"),
                 File("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")})}),
      Dir("cpu", {File("tasks"),
                  task({File("cpu.shares"), File("cpu.cfs_quota_us"), File("cpu.cfs_period_us")})}),
      Dir("blkio", {File("tasks"), task({File("blkio.bfq.weight")})}),
      Dir("cpuacct", {File("tasks"), task({File("cpuacct.usage", "77\n")})}),
      Dir("pids", {File("tasks"), task({File("pids.max"), File("pids.current", "4\n")})}),
      Dir("cpuset",
          {File("tasks"),
           Dir("nomad",
               {Dir("share",
                    {File("tasks"), File("cpuset.cpus", shared_cores), File("cpuset.mems", "0\n")}),
                Dir("reserve", {File("cpuset.mems", "0\n"),
                                Dir("a1.web", {File("tasks"), File("cpuset.cpus"),
                                               File("cpuset.mems"), File("cgroup.procs")})})})}),
  };
}

inline std::vector<Node> NomadTreeV2() {
  const std::string all = "cpuset cpu io memory pids\n";
  return {File("cgroup.controllers", all), File("cgroup.subtree_control", all),
          File("cgroup.procs"), Dir("agent", {File("cgroup.procs")}),
          Dir("nomad.slice",
              {File("cgroup.subtree_control", all),
               Dir("reserve.slice",
                   {File("cgroup.subtree_control", all),
                    Dir("a1.web.scope",
                        {File("cgroup.procs"), File("cgroup.events", "populated 0\nfrozen 0\n"),
                         File("cgroup.freeze"), File("memory.max"), File("memory.low"),
                         File("memory.swap.max"), File("cpu.weight"), File("pids.max"),
                         File("cpu.max"), File("io.weight"), File("cpuset.cpus"),
                         File("memory.events", "oom 2\noom_kill 1\n"),
                         File("memory.current", "8192\n")})})})};
}

}  // namespace jenkins_agent::cgroups
