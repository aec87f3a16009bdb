// The sandbox's root file system. The spawner makes the part that tasks share (root_template.h);
// pid 1, in its fresh pid, IPC and UTS namespaces, puts the task's own mounts onto a copy of it.
// Root only, single-threaded. All descriptors opened here are closed again.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// A cgroup directory to be seen in the sandbox, read-only: "memory" at <target>/memory, "" at the
// CGROUP mount's target itself (v2). dir_fd: borrowed, of the caller's mount namespace.
struct CgroupView {
  std::string name;
  int dir_fd;
};
struct CgroupTree {
  std::string name;
  Fd tree;  // a detached mount
};
absl::StatusOr<std::vector<CgroupTree>> CloneCgroups(const std::vector<CgroupView>& views);

// Whose ids the sandbox's files belong to.
struct RootOwner {
  const pb::UserSpec& user;
  int user_namespace = -1;  // of MakeUserNamespace(); -1: none, ids are the host's
};

// What the BIND mounts show, detached, one for each mount: invalid for other kinds and for missing
// optional sources. Made where the host's tree is seen.
absl::StatusOr<std::vector<Fd>> CloneSources(
    const google::protobuf::RepeatedPtrField<pb::MountSpec>& mounts);

// In a mount namespace made for it: replaces the host's tree by spec.mounts under a root of their
// own, with nothing in it that could be written to. `sources`: of spec.mounts. `cgroup_names`: what
// the CgroupViews of tasks will be called, for CGROUP. On error the namespace is of no use.
absl::Status BuildTemplate(const pb::TemplateSpec& spec, std::vector<Fd> sources,
                           const std::vector<std::string>& cgroup_names);

// From the host's mount namespace: leaves it for a copy of `template_namespace`, or for an image's
// root in it (TemplateForImages), makes spec.mounts there in their order, hides and protects paths,
// sets the host name. Afterwards no path leads to the host except through binds of the plan. The
// host's own mounts are never touched. On error the process must end: it may be anywhere in
// between. `await_cgroups` is called when it is the turn of a CGROUP mount; it may block. Errors
// name the step: "mount /proc: create file system proc: Operation not permitted".
using AwaitCgroups = absl::FunctionRef<absl::StatusOr<std::vector<CgroupTree>>()>;
absl::Status BuildRoot(const pb::SandboxSpec& spec, int template_namespace,
                       AwaitCgroups await_cgroups, const RootOwner& owner);

}  // namespace jenkins_agent
