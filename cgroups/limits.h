// What a task may use, and the kernel files that say so. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cgroups/devices.h"

namespace jenkins_agent::cgroups {

// A hard CPU cap is counted anew in each period; the kernel's and docker's default.
inline constexpr int64_t kCpuPeriodUs = 100'000;
// docker's scale of an I/O weight, also the kernel's of blkio.weight; 100 is the kernel's default.
inline constexpr int64_t kMinIoWeight = 10;
inline constexpr int64_t kMaxIoWeight = 1000;
inline constexpr int64_t kDefaultIoWeight = 100;

// 0 or "" = not limited. A task never swaps, whatever its limits are.
struct Limits {
  int64_t memory_bytes = 0;       // hard limit
  int64_t memory_soft_bytes = 0;  // what the task may count on when memory is short
  int64_t cpu_shares = 0;         // Nomad's MHz, a weight among tasks
  int64_t cpu_quota_us = 0;       // in each kCpuPeriodUs, of all cores together
  std::string cpuset_cpus = {};   // reserved cores, "0-3,7"
  int64_t pids = 0;               // processes and threads
  int64_t io_weight = 0;          // kMinIoWeight to kMaxIoWeight
  // Present: only these device nodes. Absent: no device controller at all.
  std::optional<std::vector<DeviceRule>> devices = {};
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

// The I/O weight has a file for each of the kernel's I/O schedulers that knows weights, and which
// of them exist depends on the kernel. The first one that exists is the one to write.
std::vector<LimitWrite> IoWeightWritesV1(int64_t weight);
std::vector<LimitWrite> IoWeightWritesV2(int64_t weight);

// v1: the controllers of which only some tasks need a directory, because of these limits.
std::vector<std::string> ExtraControllers(const Limits& limits);

}  // namespace jenkins_agent::cgroups
