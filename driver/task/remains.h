// What a task whose supervisor is gone left on the host: processes, cgroups, files.
#pragma once

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Exit code of a task whose real one nobody saw; Nomad's own drivers use it too.
inline constexpr int kUnknownExitCode = -1;

// Ends what still runs in the task's cgroups, removes them, and writes (and returns) an exit record
// that says that the supervisor died. Blocks for at most a few seconds.
pb::ExitRecord EndAsLost(const pb::TaskRecord& record);

// Kills the supervisor if it still runs, then everything in the cgroups; removes cgroups and the
// task's directory. Idempotent.
absl::Status RemoveRemains(const pb::TaskRecord& record);

}  // namespace jenkins_agent
