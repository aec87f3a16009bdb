// Names of processes that hold for good: boot id, pid and start time together.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace jenkins_agent {

// /proc/sys/kernel/random/boot_id, without the newline.
absl::StatusOr<std::string> BootId();

// Start time of a process in clock ticks since boot (/proc/PID/stat field 22, proc(5)); with the
// pid it names a process for good. NotFound when it is gone or a zombie.
absl::StatusOr<uint64_t> ProcessStartTime(pid_t pid);

// By a signal (SIGSTOP, ...) or a tracer (/proc/PID/stat field 3: T or t, proc(5)). False when it
// is gone.
bool ProcessStopped(pid_t pid);

// One look at /proc/PID/stat (proc(5)).
struct ProcessLook {
  char state = '?';         // field 3: R, S, D, T, t, ...
  uint64_t cpu_ticks = 0;   // fields 14 and 15, of all its threads, in 1 / sysconf(_SC_CLK_TCK) s
  uint64_t threads = 0;     // field 20
  uint64_t start_time = 0;  // field 22
};
// NotFound when it is gone or a zombie.
absl::StatusOr<ProcessLook> LookAtProcess(pid_t pid);

}  // namespace jenkins_agent
