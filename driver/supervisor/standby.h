// The supervisor of the next task, and its pid 1: made by the spawner ahead of need, while nothing
// starts, because their forks are a sixth of a start. They wait until they are given a task, and
// end with the spawner.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cgroups/hierarchy.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

// Of both processes while they have no task.
inline constexpr char kStandbyName[] = "ja-standby";

struct Assignment {
  int64_t received_ns = 0;  // CLOCK_MONOTONIC, when the plugin had Nomad's request
  int64_t ordered_ns = 0;   // when the spawner had the plugin's
  Fd spec;                  // sealed memfd with a LaunchSpec
  Fd connection;            // to the plugin, which waits there for the start's answer
  Fd root_template;         // mount namespace that the sandbox is a copy of
};

// Unavailable: nobody waits there (any more). Once this is OK the other end of `socket` closes when
// the start is over, whatever became of it.
absl::Status Assign(int socket, const Assignment& assignment);

// The process: waits for its assignment, then runs the whole supervisor.
[[noreturn]] void RunStandby(Fd spawner, const absl::StatusOr<cgroups::Hierarchy>& hierarchy);

}  // namespace jenkins_agent
