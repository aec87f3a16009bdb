// What /proc says of a process, and what a node holds that a task could leave behind.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

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
absl::StatusOr<int> ThreadsOf(pid_t pid);
absl::StatusOr<double> CpuSecondsOf(pid_t pid);

// CLOCK_MONOTONIC in milliseconds.
double NowMs();

// Counts that must be the same before and after tasks came and went.
struct Leftovers {
  size_t plugin_fds = 0;
  size_t spawner_fds = 0;
  size_t cgroups = 0;
  size_t mounts = 0;
  size_t state_files = 0;

  bool operator==(const Leftovers&) const = default;
};
Leftovers CountLeftovers(pid_t plugin, const std::string& state_dir, const std::string& task_mark);
std::string Describe(const Leftovers& leftovers);

}  // namespace jenkins_agent::bench
