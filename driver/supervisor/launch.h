// Starts the payload: runs in pid 1 of the sandbox, and in the child that it forks.
#pragma once

#include <sys/types.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cgroups/cgroup.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// What every launch in one sandbox shares.
struct LaunchContext {
  const pb::SandboxSpec& sandbox;
  const pb::UserSpec& user;
  const cgroups::Cgroup& cgroup;
  int stdout_fd;
  int stderr_fd;
};

// A child on its way to exec.
struct StartingPayload {
  pid_t pid = 0;
  Fd pidfd;
  Fd error;  // end of file: exec succeeded; else the error (ReadLaunchError)
};

// Writes the arguments file anew and forks the child. Always fork, never vfork: processes of the
// payload's user may stop the child before its exec, and a vforking parent would sleep with it
// (spike.md 0.2). The child's fate is told by StartingPayload::error.
absl::StatusOr<StartingPayload> StartPayload(const LaunchContext& context,
                                             const pb::ProgramSpec& program);

// OK when the child has exec'd (or died without a word: its wait status tells then).
absl::Status ReadLaunchError(int error_fd);
absl::Status ParseLaunchError(absl::string_view text);

// ---- the child, for whatever is launched ----

// A session of its own, the task's cgroups (unless the child is `inside` them), user and filter,
// then `connect_stdio` as the task's user, then exec. Returns only on failure.
absl::Status BecomeProgram(const LaunchContext& context, const pb::ProgramSpec& program,
                           bool inside, absl::FunctionRef<absl::Status()> connect_stdio);
// Says the error in the form that ParseLaunchError reads, and ends the process.
[[noreturn]] void EndWithLaunchError(const absl::Status& error, int error_fd);

}  // namespace jenkins_agent
