// What an exec session's leader reads and writes: pipes, or a terminal of the sandbox's own devpts.
// They belong to whom they serve, so the leader makes them, as the task's user.
#pragma once

#include "absl/status/status.h"

namespace jenkins_agent {

// For the calling process, whose stdin, stdout and stderr they become. The far ends go over
// `channel`, in the order of ControlRequest.Exec.
absl::Status ConnectSessionStdio(int channel, bool tty, bool merge_stderr);

}  // namespace jenkins_agent
