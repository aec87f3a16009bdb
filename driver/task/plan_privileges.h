// What the task's program may do: capabilities, filters, resource limits. Pure.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "driver/task/plan.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Capabilities, filters, hidden and protected paths. PermissionDenied names the plugin's option
// that refuses.
absl::Status PlanPrivileges(const PlanInput& input, pb::SandboxSpec& sandbox);

// Device rules beside the sandbox's own read-only /dev, for a task that could get past that: one
// that may make nodes or mount file systems with them, or that has devices of Nomad, of which it
// may do no more than was assigned, even as root. Others are started 0.3 ms sooner without
// (spike.md 8.2). A privileged task may use every device. `sandbox`: complete.
void PlanDeviceControl(const PlanInput& input, const pb::SandboxSpec& sandbox,
                       pb::CgroupSpec& cgroup);

// The map of the task's user namespace, when the job asks for one.
absl::Status PlanUserNamespace(const PlanInput& input, pb::UserSpec& user);

// The job's ulimits, and as many open files as the host allows.
absl::Status PlanLimits(const PlanInput& input, pb::SandboxSpec& sandbox);

// RLIMIT_STACK that the program will have: it bounds arguments and environment.
uint64_t StackLimit(const PlanInput& input, const pb::SandboxSpec& sandbox);

}  // namespace jenkins_agent
