#include "driver/task/stats.h"

#include <time.h>

#include "cgroups/cgroup.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;

// Percent of one core; nothing when the counter is missing or went backwards (a new cgroup).
std::optional<double> Percent(std::optional<uint64_t> before, std::optional<uint64_t> now,
                              std::chrono::nanoseconds elapsed) {
  if (!before.has_value() || !now.has_value() || *now < *before || elapsed.count() <= 0) {
    return std::nullopt;
  }
  return 100.0 * static_cast<double>(*now - *before) / static_cast<double>(elapsed.count());
}

void SetCpu(const std::optional<cgroups::Usage>& before, const cgroups::Usage& now,
            std::chrono::nanoseconds elapsed, double mhz_per_core, nomad::CPUUsage& cpu) {
  if (now.cpu_throttled_periods.has_value()) {
    cpu.set_throttled_periods(*now.cpu_throttled_periods);
    cpu.add_measured_fields(nomad::CPUUsage::THROTTLED_PERIODS);
  }
  if (now.cpu_throttled_ns.has_value()) {
    cpu.set_throttled_time(*now.cpu_throttled_ns);
    cpu.add_measured_fields(nomad::CPUUsage::THROTTLED_TIME);
  }
  if (!before.has_value()) return;
  if (const auto system = Percent(before->cpu_system_ns, now.cpu_system_ns, elapsed)) {
    cpu.set_system_mode(*system);
    cpu.add_measured_fields(nomad::CPUUsage::SYSTEM_MODE);
  }
  if (const auto user = Percent(before->cpu_user_ns, now.cpu_user_ns, elapsed)) {
    cpu.set_user_mode(*user);
    cpu.add_measured_fields(nomad::CPUUsage::USER_MODE);
  }
  if (const auto total = Percent(before->cpu_total_ns, now.cpu_total_ns, elapsed)) {
    cpu.set_percent(*total);
    cpu.add_measured_fields(nomad::CPUUsage::PERCENT);
    if (mhz_per_core > 0) {
      cpu.set_total_ticks(*total / 100.0 * mhz_per_core);
      cpu.add_measured_fields(nomad::CPUUsage::TOTAL_TICKS);
    }
  }
}

void SetMemory(const cgroups::Usage& now, nomad::MemoryUsage& memory) {
  const auto set = [&memory](std::optional<uint64_t> value, auto setter,
                             nomad::MemoryUsage::Fields field) {
    if (!value.has_value()) return;
    (memory.*setter)(*value);
    memory.add_measured_fields(field);
  };
  set(now.memory_rss_bytes, &nomad::MemoryUsage::set_rss, nomad::MemoryUsage::RSS);
  set(now.memory_cache_bytes, &nomad::MemoryUsage::set_cache, nomad::MemoryUsage::CACHE);
  set(now.memory_swap_bytes, &nomad::MemoryUsage::set_swap, nomad::MemoryUsage::SWAP);
  set(now.memory_usage_bytes, &nomad::MemoryUsage::set_usage, nomad::MemoryUsage::USAGE);
  set(now.memory_peak_bytes, &nomad::MemoryUsage::set_max_usage, nomad::MemoryUsage::MAX_USAGE);
  set(now.memory_kernel_bytes, &nomad::MemoryUsage::set_kernel_usage,
      nomad::MemoryUsage::KERNEL_USAGE);
}

}  // namespace

nomad::TaskResourceUsage ToResourceUsage(const std::optional<cgroups::Usage>& before,
                                         const cgroups::Usage& now,
                                         std::chrono::nanoseconds elapsed, double mhz_per_core) {
  nomad::TaskResourceUsage usage;
  SetCpu(before, now, elapsed, mhz_per_core, *usage.mutable_cpu());
  SetMemory(now, *usage.mutable_memory());
  return usage;
}

absl::StatusOr<nomad::TaskStats> TaskSampler::Sample() {
  if (!cgroup_.has_value()) {
    ASSIGN_OR_RETURN(const cgroups::Hierarchy hierarchy, cgroups::Hierarchy::Detect());
    ASSIGN_OR_RETURN(cgroup_, cgroups::Cgroup::Open(hierarchy, {record_.cgroup_dirs().begin(),
                                                                record_.cgroup_dirs().end()}));
  }
  ASSIGN_OR_RETURN(cgroups::Usage now, cgroup_->ReadUsage());
  const auto time = std::chrono::steady_clock::now();
  nomad::TaskStats stats;
  stats.set_id(record_.task_id());
  timespec wall;
  ::clock_gettime(CLOCK_REALTIME, &wall);
  stats.mutable_timestamp()->set_seconds(wall.tv_sec);
  stats.mutable_timestamp()->set_nanos(static_cast<int32_t>(wall.tv_nsec));
  *stats.mutable_agg_resource_usage() =
      ToResourceUsage(last_, now, time - last_time_, mhz_per_core_);
  last_ = now;
  last_time_ = time;
  return stats;
}

}  // namespace jenkins_agent
