// What is measured of all tasks: how many there are, what they do, what they use of their limits,
// how long they were held back.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "driver/metrics/metrics.h"
#include "driver/task/task.h"

namespace jenkins_agent {

// What the kernel counts for a task from its beginning, in nanoseconds; 0: it does not tell.
struct Waits {
  uint64_t throttled = 0;  // by cpu_hard_limit
  uint64_t cpu = 0;        // for want of it (PSI)
  uint64_t memory = 0;
  uint64_t io = 0;
};
using WaitsByTask = std::map<std::string, Waits>;  // by the task's id

// How much the tasks that are in both have waited in between, all together. Pure.
Waits Growth(const WaitsByTask& before, const WaitsByTask& now);

// Not thread-safe; `metrics` outlives it.
class TaskMeter {
 public:
  explicit TaskMeter(Metrics* metrics) : metrics_(*metrics) {}

  // Sets the gauges; counts what the tasks have waited since the last time. Reads each task's
  // cgroups, some 0.2 ms for each: not for the event loop.
  void Measure(const std::vector<std::shared_ptr<Task>>& tasks);

 private:
  Metrics& metrics_;
  WaitsByTask last_;
};

// Label value of jenkins_agent_agents; "" for a task that is no agent. Pure.
std::string AgentPhaseLabel(const pb::TaskStatus& status);

}  // namespace jenkins_agent
