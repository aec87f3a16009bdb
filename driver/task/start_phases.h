// What each part of a start took, for the operator: pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "proto/supervisor.pb.h"

namespace jenkins_agent {

struct StartPhase {
  std::string name;  // "plan", "spawn", "cgroups", "root", "launch"
  double ms;
};

// In their order, one behind the other; their sum is the time since the plugin got the request.
// Empty for a supervisor of a release that did not take these times; without "launch" for a program
// that has not been launched yet, an agent's.
std::vector<StartPhase> PhasesOf(const pb::Timings& timings);

// "started in 3.1 ms: plan 0.9, spawn 0.3, cgroups 0.6, root 1.0, launch 0.3"; "" without phases.
std::string StartMessage(const std::vector<StartPhase>& phases);

// "plan_ms" and so on, for an event's details and InspectTask.
std::map<std::string, std::string> StartDetails(const std::vector<StartPhase>& phases);

}  // namespace jenkins_agent
