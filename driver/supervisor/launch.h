// Starts the payload: runs in pid 1 of the sandbox, and in the child that it forks.
#pragma once

#include <sys/types.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

}  // namespace jenkins_agent
