// Whether what Nomad asks for can be carried out at all, said before anything is made for it. Pure.
// Errors name the field and what is allowed, never a value of the environment.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "proto/nomad_driver.pb.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Names that become parts of paths and of a cgroup's name, paths, resources, environment.
absl::Status CheckStartRequest(const hashicorp::nomad::plugins::drivers::proto::TaskConfig& task);

// Linux's limits on arguments and environment (execve(2)), which it tells only as "Argument list
// too long". `stack_limit`: RLIMIT_STACK of the program.
absl::Status CheckExecSize(const pb::ProgramSpec& program, uint64_t stack_limit);

}  // namespace jenkins_agent
