// The gauges of all tasks: how many there are, what they do, what they use of their limits.
#pragma once

#include <memory>
#include <vector>

#include "driver/metrics/metrics.h"
#include "driver/task/task.h"

namespace jenkins_agent {

// Reads each task's cgroups, some 0.2 ms for each: not for the event loop. Thread-safe.
void MeasureTasks(const std::vector<std::shared_ptr<Task>>& tasks, Metrics& metrics);

// Label value of jenkins_agent_agents; "" for a task that is no agent. Pure.
std::string AgentPhaseLabel(const pb::TaskStatus& status);

}  // namespace jenkins_agent
