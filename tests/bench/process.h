// What /proc says of a process.
#pragma once

#include <sys/types.h>

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace jenkins_agent::bench {

struct ProcessMemory {
  double rss_kb = 0;
  double pss_kb = 0;
  double private_dirty_kb = 0;

  ProcessMemory& operator+=(const ProcessMemory& other);
};

absl::StatusOr<ProcessMemory> MemoryOf(pid_t pid);
absl::StatusOr<double> PeakRssKbOf(pid_t pid);
absl::StatusOr<int> ThreadsOf(pid_t pid);
absl::StatusOr<double> CpuSecondsOf(pid_t pid);
size_t DescriptorsOf(pid_t pid);  // open ones; 0 when the process is gone

// CLOCK_MONOTONIC in milliseconds.
double NowMs();

}  // namespace jenkins_agent::bench
