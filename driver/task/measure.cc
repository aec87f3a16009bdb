#include "driver/task/measure.h"

#include <algorithm>
#include <map>
#include <string>

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

void AddUsage(const cgroups::Hierarchy& hierarchy, const pb::TaskRecord& record, Share& threads,
              Share& memory) {
  const auto cgroup =
      cgroups::Cgroup::Open(hierarchy, {record.cgroup_dirs().begin(), record.cgroup_dirs().end()});
  if (!cgroup.ok()) return;
  const auto usage = cgroup->ReadUsage();
  const auto ceiling = cgroup->ReadCeiling();
  if (!usage.ok() || !ceiling.ok()) return;  // it has just ended
  threads.Add(usage->pids, ceiling->pids);
  memory.Add(cgroups::MemoryInUse(*usage), ceiling->memory_bytes);
}

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

void MeasureTasks(const std::vector<std::shared_ptr<Task>>& tasks, Metrics& metrics) {
  double running = 0;
  std::map<std::string, double> agents;
  Share threads;
  Share memory;
  const auto hierarchy = cgroups::Hierarchy::Detect();
  for (const std::shared_ptr<Task>& task : tasks) {
    if (task->exited()) continue;
    ++running;
    ++agents[AgentPhaseLabel(task->last_status())];
    if (hierarchy.ok()) AddUsage(*hierarchy, task->record(), threads, memory);
  }
  metrics.Set(Metric::kTasks, "", running);
  for (const std::string& phase : SeriesOf(Metric::kAgents).values) {
    metrics.Set(Metric::kAgents, phase, agents[phase]);
  }
  metrics.Set(Metric::kThreads, "", threads.used);
  metrics.Set(Metric::kThreadsLimit, "", threads.limit);
  metrics.Set(Metric::kThreadsRatioMax, "", threads.fullest);
  metrics.Set(Metric::kMemory, "", memory.used);
  metrics.Set(Metric::kMemoryLimit, "", memory.limit);
  metrics.Set(Metric::kMemoryRatioMax, "", memory.fullest);
}

}  // namespace jenkins_agent
