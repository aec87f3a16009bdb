#include "driver/task/measure.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "cgroups/cgroup.h"
#include "driver/agent/phases.h"

namespace jenkins_agent {
namespace {

// Of something that each task may have so much of.
struct Share {
  double used = 0;
  double limit = 0;
  double fullest = 0;

  void Add(std::optional<uint64_t> task_uses, std::optional<uint64_t> task_may) {
    if (!task_uses.has_value()) return;
    used += static_cast<double>(*task_uses);
    if (!task_may.has_value() || *task_may == 0) return;
    limit += static_cast<double>(*task_may);
    fullest = std::max(fullest, static_cast<double>(*task_uses) / static_cast<double>(*task_may));
  }
};

// What there is to say of one task.
struct Look {
  cgroups::Usage usage;
  cgroups::Ceiling ceiling;
  cgroups::Stalls stalls;
};

std::optional<Look> LookAt(const cgroups::Hierarchy& hierarchy, const pb::TaskRecord& record) {
  const auto cgroup =
      cgroups::Cgroup::Open(hierarchy, {record.cgroup_dirs().begin(), record.cgroup_dirs().end()});
  if (!cgroup.ok()) return std::nullopt;
  const auto usage = cgroup->ReadUsage();
  const auto ceiling = cgroup->ReadCeiling();
  if (!usage.ok() || !ceiling.ok()) return std::nullopt;  // it has just ended
  const auto stalls = cgroup->ReadStalls();
  return Look{*usage, *ceiling, stalls.ok() ? *stalls : cgroups::Stalls()};
}

Waits WaitsOf(const Look& look) {
  return {.throttled = look.usage.cpu_throttled_ns.value_or(0),
          .cpu = look.stalls.cpu_ns.value_or(0),
          .memory = look.stalls.memory_ns.value_or(0),
          .io = look.stalls.io_ns.value_or(0)};
}

double Seconds(uint64_t ns) { return static_cast<double>(ns) / 1e9; }

}  // namespace

std::string AgentPhaseLabel(const pb::TaskStatus& status) {
  if (status.agent_name().empty()) return "";
  switch (status.state()) {
    case pb::WAITING_FOR_JAR:
      return "waiting_for_jar";
    case pb::BACKING_OFF:
      return "backing_off";
    case pb::STOPPING:
      return "stopping";
    default:
      break;
  }
  const absl::string_view phase = PhaseKey(status.phase());
  return phase.empty() ? "starting" : std::string(phase);
}

Waits Growth(const WaitsByTask& before, const WaitsByTask& now) {
  Waits growth;
  for (const auto& [id, waits] : now) {
    const auto last = before.find(id);
    if (last == before.end()) continue;
    for (const auto field : {&Waits::throttled, &Waits::cpu, &Waits::memory, &Waits::io}) {
      growth.*field += waits.*field - std::min(waits.*field, last->second.*field);
    }
  }
  return growth;
}

void TaskMeter::Measure(const std::vector<std::shared_ptr<Task>>& tasks) {
  double running = 0;
  std::map<std::string, double> agents;
  Share threads;
  Share memory;
  WaitsByTask waits;
  const auto hierarchy = cgroups::Hierarchy::Detect();
  for (const std::shared_ptr<Task>& task : tasks) {
    if (task->exited()) continue;
    ++running;
    ++agents[AgentPhaseLabel(task->last_status())];
    if (!hierarchy.ok()) continue;
    const std::optional<Look> look = LookAt(*hierarchy, task->record());
    if (!look) continue;
    threads.Add(look->usage.pids, look->ceiling.pids);
    memory.Add(cgroups::MemoryInUse(look->usage), look->ceiling.memory_bytes);
    waits[task->record().task_id()] = WaitsOf(*look);
  }
  metrics_.Set(Metric::kTasks, "", running);
  for (const std::string& phase : SeriesOf(Metric::kAgents).values) {
    metrics_.Set(Metric::kAgents, phase, agents[phase]);
  }
  metrics_.Set(Metric::kThreads, "", threads.used);
  metrics_.Set(Metric::kThreadsLimit, "", threads.limit);
  metrics_.Set(Metric::kThreadsRatioMax, "", threads.fullest);
  metrics_.Set(Metric::kMemory, "", memory.used);
  metrics_.Set(Metric::kMemoryLimit, "", memory.limit);
  metrics_.Set(Metric::kMemoryRatioMax, "", memory.fullest);
  const Waits growth = Growth(last_, waits);
  last_ = std::move(waits);
  metrics_.Count(Metric::kCpuThrottled, "", Seconds(growth.throttled));
  metrics_.Count(Metric::kStalls, "cpu", Seconds(growth.cpu));
  metrics_.Count(Metric::kStalls, "memory", Seconds(growth.memory));
  metrics_.Count(Metric::kStalls, "io", Seconds(growth.io));
}

}  // namespace jenkins_agent
