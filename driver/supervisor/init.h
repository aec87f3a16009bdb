// pid 1 of a sandbox: builds it while the supervisor makes the task's cgroups, launches the payload
// as often as the supervisor asks, reaps.
//
// Single-threaded, a clone of the supervisor, non-dumpable, outside the task's cgroups. It ends
// with the supervisor in two ways: by PDEATHSIG, and when its socket reaches end of file, because a
// change of ids silently clears PDEATHSIG (spike.md 0.3, 6).
#pragma once

#include "cgroups/hierarchy.h"

namespace jenkins_agent {

struct InitParameters {
  const cgroups::Hierarchy& hierarchy;
  int supervisor;  // SEQPACKET socket
  int stdout_fd;   // write ends that the payload gets
  int stderr_fd;
};

// Waits for its order, builds the sandbox, serves.
[[noreturn]] void RunInit(const InitParameters& parameters);

}  // namespace jenkins_agent
