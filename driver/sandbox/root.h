// The sandbox's root file system, built by pid 1 in its fresh mount, pid, IPC and UTS namespaces.
// Root only, single-threaded, once per process. All descriptors it opens are closed again.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// A cgroup directory to be seen in the sandbox, read-only: "memory" at <target>/memory, "" at the
// CGROUP mount's target itself (v2). dir_fd: borrowed; may come from the host's mount namespace.
struct CgroupView {
  std::string name;
  int dir_fd;
};

// Whose ids the sandbox's files belong to.
struct RootOwner {
  const pb::UserSpec& user;
  int user_namespace = -1;  // of MakeUserNamespace(); -1: none, ids are the host's
};

// Makes spec.mounts in their order under an empty read-only root, moves into it, drops the host's
// tree, hides and protects paths, sets the host name. Afterwards no path leads to the host except
// through binds of the plan. On error the process must end: it is somewhere between both trees.
// Errors name the step: "mount /proc: create file system proc: Operation not permitted".
absl::Status BuildRoot(const pb::SandboxSpec& spec, const std::vector<CgroupView>& cgroups,
                       const RootOwner& owner);

}  // namespace jenkins_agent
