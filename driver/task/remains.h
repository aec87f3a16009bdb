// What a task whose supervisor is gone left on the host: processes, cgroups, files.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "driver/base/paths.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Exit code of a task whose real one nobody saw; Nomad's own drivers use it too.
inline constexpr int kUnknownExitCode = -1;

// Whether the supervisor, which does not answer, has ended. One that is about to end has closed its
// sockets before it counts as dead (do_exit in kernel/exit.c, Linux 6.1), so this blocks for up to
// two seconds.
bool SupervisorGone(const pb::TaskRecord& record);

// Ends what still runs in the task's cgroups, removes them, and writes (and returns) an exit record
// that says that the supervisor died. Blocks for at most a few seconds.
pb::ExitRecord EndAsLost(const pb::TaskRecord& record);

// Says on disk that this task is to be removed, whoever does it. Best effort: the disk may be full.
void MarkForRemoval(const std::string& task_dir);

// Returns when the supervisor has ended, and with it (PDEATHSIG) the sandbox. Blocks for at most a
// few seconds.
absl::Status KillSupervisor(const pb::TaskRecord& record);

// Kills the supervisor if it still runs, then everything in the cgroups; removes cgroups and the
// task's directory. Idempotent. What is interrupted after the mark is done by ClearLeftovers().
absl::Status RemoveRemains(const pb::TaskRecord& record);

// The same for a task that only the disk knows, whatever state its directory is in.
absl::Status RemoveFromDisk(const std::string& task_dir, const StatePaths& paths,
                            absl::string_view boot_id);

// Removes the task's cgroups, in which nobody may be: FailedPrecondition, and nobody is killed.
absl::Status RemoveEmptyCgroups(const pb::TaskRecord& record);

}  // namespace jenkins_agent
