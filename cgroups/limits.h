// What a task may use, and the kernel files that say so. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace jenkins_agent::cgroups {

// 0 or "" = not limited.
struct Limits {
  int64_t memory_bytes = 0;       // hard limit
  int64_t memory_soft_bytes = 0;  // what the task may count on when memory is short
  int64_t cpu_shares = 0;         // Nomad's MHz, a weight among tasks
  std::string cpuset_cpus = {};   // reserved cores, "0-3,7"
  int64_t pids = 0;               // processes and threads
};

// The kernel's range of cpu.shares is 2..262144; outside of it the kernel clamps silently.
int64_t ClampShares(int64_t shares);
// cpu.weight (1..10000) for cpu.shares, the formula of runc, crun and Nomad: 1024 -> 100.
int64_t SharesToWeight(int64_t shares);

struct LimitWrite {
  std::string controller = {};
  std::string file = {};
  std::string value = {};
  // False: the value only takes back what an earlier task left, or the kernel may lack the file.
  bool required = false;
};

// Every file that an earlier task in the same directory may have left set, in the order of writing.
// A task's directory outlives a restart of the task within its allocation.
std::vector<LimitWrite> LimitWritesV1(const Limits& limits);
std::vector<LimitWrite> LimitWritesV2(const Limits& limits);

}  // namespace jenkins_agent::cgroups
