// The supervisor's side of pid 1: starts it, talks to it, ends it and with it the whole sandbox.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cgroups/hierarchy.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

struct InitProcess {
  pid_t pid = 0;  // host pid
  Fd pidfd;       // readable when it has ended
  Fd socket;      // init_protocol.h; non-blocking
  Fd out;         // where the payload's stdout and stderr are read
  Fd err;
};

// Clones pid 1 into new pid, ipc and uts namespaces. It waits for SendOrder; then it builds the
// sandbox, with a mount namespace copied from the template's, by itself, waits for SendCgroups and
// reports. `close_in_init`: descriptors of the supervisor that pid 1 must not hold, because their
// other end waits for end of file.
absl::StatusOr<InitProcess> StartInit(const cgroups::Hierarchy& hierarchy,
                                      const std::vector<int>& close_in_init);

// SIGKILL; the kernel ends every process of the pid namespace with pid 1.
void KillSandbox(const InitProcess& init);
// Reaps pid 1 after `pidfd` became readable: its wait status in words ("killed by signal 9").
std::string ReapInit(const InitProcess& init);

}  // namespace jenkins_agent
