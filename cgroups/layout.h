// Which directories a task has in which controllers. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cgroups/hierarchy.h"

namespace jenkins_agent::cgroups {

struct Placement {
  std::string name = {};  // "<alloc_id>.<task>", one path component
  std::string cpuset_cgroup =
      {};  // linux_resources.cpuset_cgroup of Nomad; may be empty or not exist
  std::vector<std::string> extra_controllers = {};  // v1: of ExtraControllers (limits.h)
};

// One directory of a controller. Controllers that are mounted together have the same one.
struct Part {
  std::string controller = {};  // "" for the one directory of v2
  std::string dir = {};
  bool own = true;     // this task's only; false: the cpuset that Nomad shares among tasks
  bool nomads = true;  // Nomad makes it before StartTask and removes it after DestroyTask
  bool operator==(const Part&) const = default;
};

// In the order of joining. The freezer comes first: who is caught half-way by a freeze-and-kill is
// seen there.
absl::StatusOr<std::vector<Part>> PlanParts(const Hierarchy& hierarchy, const Placement& placement);
// The same from a list of directories of an earlier start; the shared cpuset is not among them.
absl::StatusOr<std::vector<Part>> PartsOf(const Hierarchy& hierarchy,
                                          const std::vector<std::string>& dirs);

}  // namespace jenkins_agent::cgroups
