#include "cgroups/limits.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace jenkins_agent::cgroups {
namespace {

constexpr int64_t kMinShares = 2;
constexpr int64_t kMaxShares = 262144;
constexpr int64_t kDefaultShares = 1024;
constexpr int64_t kDefaultWeight = 100;
constexpr int64_t kMaxWeight = 10000;

std::string ValueOr(int64_t limit, const std::string& none) {
  return limit > 0 ? absl::StrCat(limit) : none;
}

}  // namespace

int64_t ClampShares(int64_t shares) { return std::clamp(shares, kMinShares, kMaxShares); }

int64_t SharesToWeight(int64_t shares) {
  if (shares <= kMinShares) return 1;
  if (shares >= kMaxShares) return kMaxWeight;
  const double l = std::log2(static_cast<double>(shares));
  return static_cast<int64_t>(std::ceil(std::pow(10, (l * l + 125 * l) / 612 - 7.0 / 34)));
}

std::vector<std::string> ExtraControllers(const Limits& limits) {
  std::vector<std::string> controllers;
  if (limits.io_weight > 0) controllers.push_back("blkio");
  if (limits.devices.has_value()) controllers.push_back("devices");
  return controllers;
}

std::vector<LimitWrite> LimitWritesV1(const Limits& limits) {
  const int64_t shares = limits.cpu_shares > 0 ? ClampShares(limits.cpu_shares) : kDefaultShares;
  std::vector<LimitWrite> writes = {
      // A supervisor that died between freeze and thaw would freeze the new task as it joins.
      {"freezer", "freezer.state", "THAWED", true},
      {"memory", "memory.max_usage_in_bytes", "0"},  // the peak of the earlier task
      {"memory", "memory.swappiness", "0"},          // absent without swap support
      {"memory", "memory.soft_limit_in_bytes", ValueOr(limits.memory_soft_bytes, "-1"),
       limits.memory_soft_bytes > 0},
      // Memory and swap together: never below memory alone, hence taken back first.
      {"memory", "memory.memsw.limit_in_bytes", "-1"},
      {"memory", "memory.limit_in_bytes", ValueOr(limits.memory_bytes, "-1"),
       limits.memory_bytes > 0},
      {"cpu", "cpu.shares", absl::StrCat(shares), limits.cpu_shares > 0},
      {"cpu", "cpu.cfs_quota_us", "-1"},  // a period that does not fit the old quota is refused
      {"cpu", "cpu.cfs_period_us", absl::StrCat(kCpuPeriodUs), limits.cpu_quota_us > 0},
      {"pids", "pids.max", ValueOr(limits.pids, "max"), limits.pids > 0},
  };
  if (limits.memory_bytes >
      0) {  // swappiness 0 still swaps in need; absent without swap accounting
    writes.push_back({"memory", "memory.memsw.limit_in_bytes", absl::StrCat(limits.memory_bytes)});
  }
  if (limits.cpu_quota_us > 0) {
    writes.push_back({"cpu", "cpu.cfs_quota_us", absl::StrCat(limits.cpu_quota_us), true});
  }
  if (!limits.cpuset_cpus.empty()) {
    writes.push_back({"cpuset", "cpuset.cpus", limits.cpuset_cpus, true});
  }
  return writes;
}

std::vector<LimitWrite> LimitWritesV2(const Limits& limits) {
  const int64_t weight =
      limits.cpu_shares > 0 ? SharesToWeight(ClampShares(limits.cpu_shares)) : kDefaultWeight;
  std::vector<LimitWrite> writes = {
      {"", "cgroup.freeze", "0"},
      // What memsw and swappiness are on v1. Absent without swap support.
      {"memory", "memory.swap.max", "0"},
      {"memory", "memory.low", ValueOr(limits.memory_soft_bytes, "0"),
       limits.memory_soft_bytes > 0},
      {"memory", "memory.max", ValueOr(limits.memory_bytes, "max"), limits.memory_bytes > 0},
      {"cpu", "cpu.weight", absl::StrCat(weight), limits.cpu_shares > 0},
      {"cpu", "cpu.max", absl::StrCat(ValueOr(limits.cpu_quota_us, "max"), " ", kCpuPeriodUs),
       limits.cpu_quota_us > 0},
      {"pids", "pids.max", ValueOr(limits.pids, "max"), limits.pids > 0},
  };
  if (!limits.cpuset_cpus.empty()) {
    writes.push_back({"cpuset", "cpuset.cpus", limits.cpuset_cpus, true});
  }
  return writes;
}

// runc and crun write them in these orders, too.
std::vector<LimitWrite> IoWeightWritesV1(int64_t weight) {
  return {{"blkio", "blkio.weight", absl::StrCat(weight)},
          {"blkio", "blkio.bfq.weight", absl::StrCat(weight)}};
}

// bfq has one scale everywhere; io.weight goes to 10000, and the default stays at the default.
std::vector<LimitWrite> IoWeightWritesV2(int64_t weight) {
  constexpr int64_t kMaxWeightV2 = 10000;
  const int64_t scaled =
      weight == kDefaultIoWeight
          ? kDefaultIoWeight
          : 1 + (weight - kMinIoWeight) * (kMaxWeightV2 - 1) / (kMaxIoWeight - kMinIoWeight);
  return {{"io", "io.bfq.weight", absl::StrCat(weight)}, {"io", "io.weight", absl::StrCat(scaled)}};
}

}  // namespace jenkins_agent::cgroups
