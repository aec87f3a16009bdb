// pid 1 of a sandbox: builds it while the supervisor makes the task's cgroups, launches the payload
// as often as the supervisor asks, reaps.
//
// Single-threaded, a clone of the supervisor, non-dumpable, outside the task's cgroups. It ends
// with the supervisor in two ways: by PDEATHSIG, and when its socket reaches end of file, because a
// change of ids silently clears PDEATHSIG (spike.md 0.3, 6).
#pragma once

#include "cgroups/hierarchy.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

struct InitParameters {
  pb::LaunchSpec& spec;  // pid 1's own copy; it drops what it has done
  const cgroups::Hierarchy& hierarchy;
  Fd& root_template;  // mount namespace; also a copy
  int supervisor;     // SEQPACKET socket
  int stdout_fd;      // write ends that the payload gets
  int stderr_fd;
};

[[noreturn]] void RunInit(const InitParameters& parameters);

}  // namespace jenkins_agent
