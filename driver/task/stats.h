// A task's use of CPU and memory in the form that Nomad shows.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "cgroups/cgroup.h"
#include "cgroups/usage.h"
#include "proto/nomad_driver.pb.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Reads one task's cgroups again and again; CPU percentages are over the time since the last call.
// Not thread-safe.
class TaskSampler {
 public:
  // `mhz_per_core`: of this node as Nomad counts it, 0 when it did not say.
  TaskSampler(const pb::TaskRecord& record, double mhz_per_core)
      : record_(record), mhz_per_core_(mhz_per_core) {}

  absl::StatusOr<hashicorp::nomad::plugins::drivers::proto::TaskStats> Sample();

 private:
  const pb::TaskRecord record_;
  const double mhz_per_core_;
  std::optional<cgroups::Cgroup> cgroup_;
  std::optional<cgroups::Usage> last_;
  std::chrono::steady_clock::time_point last_time_;
};

// The arithmetic of Sample: percent of one core (400 = four busy cores). Only what was measured is
// in measured_fields. `before` may be empty: no percentages then. Pure.
hashicorp::nomad::plugins::drivers::proto::TaskResourceUsage ToResourceUsage(
    const std::optional<cgroups::Usage>& before, const cgroups::Usage& now,
    std::chrono::nanoseconds elapsed, double mhz_per_core);

}  // namespace jenkins_agent
