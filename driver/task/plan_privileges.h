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

// The map of the task's user namespace, when the job asks for one.
absl::Status PlanUserNamespace(const PlanInput& input, pb::UserSpec& user);

// The job's ulimits, and as many open files as the host allows.
absl::Status PlanLimits(const PlanInput& input, pb::SandboxSpec& sandbox);

// RLIMIT_STACK that the program will have: it bounds arguments and environment.
uint64_t StackLimit(const PlanInput& input, const pb::SandboxSpec& sandbox);

}  // namespace jenkins_agent
