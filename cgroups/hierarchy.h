// Where the host's cgroup controllers are mounted, and where the calling process is in them.
//
// A value: detected once (reading mountinfo is dear on a node with many mounts), then copied.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace jenkins_agent::cgroups {

// kV1 is also a hybrid host (v1 controllers plus cgroup2 on .../unified), as for Nomad: the cgroup2
// tree of such a host is left alone.
enum class Version { kNone, kV1, kV2 };

class Hierarchy {
 public:
  // Reads <proc_root>/self/mountinfo and <proc_root>/self/cgroup. A host without cgroups is no
  // error: version() is kNone then.
  static absl::StatusOr<Hierarchy> Detect(const std::string& proc_root = "/proc",
                                          const std::string& cgroup_root = "/sys/fs/cgroup");

  Version version() const { return version_; }
  const std::string& root() const { return root_; }
  // v2, mounted with nsdelegate, as systemd does: who is in a cgroup namespace may neither move nor
  // clone a process into it from without (kernel/cgroup/cgroup.c, cgroup_procs_write_permission).
  bool namespaces_delegate() const { return namespaces_delegate_; }

  // Controllers by the kernel's name: "memory", "cpu", "cpuacct", "cpuset", "pids", "freezer".
  bool Has(const std::string& controller) const { return places_.count(controller) > 0; }
  // v1: the mount point of that controller. v2: the root. "" when the host does not have it.
  std::string ControllerPath(const std::string& controller) const;
  // The directory of the process that called Detect. v2: also for the controller "".
  std::string OuterPath(const std::string& controller) const;

  // `path` as messages show it: without the root, "memory/nomad/x".
  std::string Short(const std::string& path) const;

 private:
  struct Place {
    std::string mount_point;
    std::string outer;
  };
  Version version_ = Version::kNone;
  bool namespaces_delegate_ = false;
  std::string root_;
  std::map<std::string, Place> places_;
};

}  // namespace jenkins_agent::cgroups
