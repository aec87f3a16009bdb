#include "driver/task/start_phases.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace jenkins_agent {

// pid 1 builds the root meanwhile: what this takes longer than the cgroups is the root's.
std::vector<StartPhase> PhasesOf(const pb::Timings& timings) {
  if (timings.ordered_ms() <= 0 || timings.cgroup_ms() <= 0) return {};
  std::vector<StartPhase> phases = {
      {"plan", timings.ordered_ms()},
      {"spawn", timings.forked_ms() - timings.ordered_ms()},
      {"cgroups", timings.cgroup_ms() - timings.forked_ms()},
      {"root", timings.sandbox_ms() - timings.cgroup_ms()},
  };
  if (timings.launched_ms() > 0) {
    phases.push_back({"launch", timings.launched_ms() - timings.sandbox_ms()});
  }
  return phases;
}

std::string StartMessage(const std::vector<StartPhase>& phases) {
  if (phases.empty()) return "";
  double total = 0;
  std::string parts;
  for (const StartPhase& phase : phases) {
    total += phase.ms;
    absl::StrAppend(&parts, parts.empty() ? "" : ", ", phase.name, " ",
                    absl::StrFormat("%.1f", phase.ms));
  }
  return absl::StrCat(phases.back().name == "launch" ? "started" : "sandbox ready", " in ",
                      absl::StrFormat("%.1f", total), " ms: ", parts);
}

std::map<std::string, std::string> StartDetails(const std::vector<StartPhase>& phases) {
  std::map<std::string, std::string> details;
  for (const StartPhase& phase : phases) {
    details[phase.name + "_ms"] = absl::StrFormat("%.1f", phase.ms);
  }
  return details;
}

}  // namespace jenkins_agent
