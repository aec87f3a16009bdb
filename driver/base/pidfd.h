// Processes by descriptor: unlike a number it never comes to mean another process (pidfd_open(2)).
// Thread-safe.
#pragma once

#include <sys/types.h>

#include <chrono>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

// CLOEXEC; readable once the process has ended. NotFound: there is none of that number.
absl::StatusOr<Fd> OpenPidfd(pid_t pid);
// OK also when the process has already ended.
absl::Status SignalPidfd(int pidfd, int signal);
// Whether the process ended within `limit`; 0: has it?
bool AwaitPidfd(int pidfd, std::chrono::milliseconds limit);
// Number of the process in the caller's pid namespace; 0 when it has been reaped.
pid_t PidOfPidfd(int pidfd);

}  // namespace jenkins_agent
