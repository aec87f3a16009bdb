#include "cgroups/layout.h"

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "driver/base/status.h"

namespace jenkins_agent::cgroups {
namespace {

constexpr size_t kMaxNameBytes = 255;  // NAME_MAX
// Parent of all tasks, as Nomad calls it (client/lib/cgroupslib); v2 with its shared partition.
constexpr char kParentV1[] = "nomad";
constexpr char kParentV2[] = "nomad.slice/share.slice";

struct V1Controller {
  const char* name;
  bool nomads;
  bool extra = false;  // joined by the tasks that ask for it: each costs 20 us at every launch
};
// Nomad makes directories in freezer, memory, cpu and cpuset only.
constexpr std::array<V1Controller, 8> kV1Controllers = {{{"freezer", true},
                                                         {"memory", true},
                                                         {"cpu", true},
                                                         {"cpuacct", false},
                                                         {"pids", false},
                                                         {"blkio", false, true},
                                                         {"devices", false, true},
                                                         {"cpuset", true}}};

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

absl::Status CheckName(const std::string& name) {
  const bool one_component = !name.empty() && name != "." && name != ".." &&
                             name.find('/') == std::string::npos &&
                             name.find('\0') == std::string::npos;
  if (one_component && name.size() <= kMaxNameBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "cgroup name '", name, "': must be one path component of at most ", kMaxNameBytes, " bytes"));
}

bool IsBelow(const std::string& path, const std::string& dir) {
  if (dir.empty() || !absl::StartsWith(path, dir + "/") || absl::EndsWith(path, "/")) return false;
  for (absl::string_view component : absl::StrSplit(path, '/')) {
    if (component == ".." || component == ".") return false;
  }
  return true;
}

// Controllers mounted together share a directory, and Nomad's is Nomad's also for the others.
void MarkNomads(std::vector<Part>& parts) {
  for (Part& part : parts) {
    part.nomads = std::any_of(parts.begin(), parts.end(), [&part](const Part& other) {
      return other.dir == part.dir && other.nomads;
    });
  }
}

// Nomad's own, or another layout's below the same root when it has switched cgroups off.
absl::Status CheckCpusetCgroup(const Hierarchy& hierarchy, const std::string& path) {
  if (path.empty() || IsBelow(path, hierarchy.root())) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("cpuset_cgroup '", path,
                                                 "': not a directory below ", hierarchy.root(),
                                                 ", where this host's cgroups are"));
}

std::vector<Part> PlanV1(const Hierarchy& hierarchy, const Placement& placement) {
  std::vector<Part> parts;
  const std::vector<std::string>& extras = placement.extra_controllers;
  for (const auto& [name, nomads, extra] : kV1Controllers) {
    const std::string mount = hierarchy.ControllerPath(name);
    if (mount.empty() || name == absl::string_view("cpuset")) continue;
    if (extra && std::find(extras.begin(), extras.end(), name) == extras.end()) continue;
    parts.push_back({.controller = name,
                     .dir = absl::StrCat(mount, "/", kParentV1, "/", placement.name),
                     .nomads = nomads});
  }
  // Nomad passes a path of another layout when it has switched cgroups off: then, as without a
  // path, the task stays in the cpuset of its supervisor.
  if (IsBelow(placement.cpuset_cgroup, hierarchy.ControllerPath("cpuset"))) {
    parts.push_back({.controller = "cpuset",
                     .dir = placement.cpuset_cgroup,
                     .own = BaseName(placement.cpuset_cgroup) == placement.name});
  }
  MarkNomads(parts);
  return parts;
}

absl::StatusOr<std::vector<Part>> PlanV2(const Hierarchy& hierarchy, const Placement& placement) {
  std::string dir = absl::StrCat(hierarchy.root(), "/", kParentV2, "/", placement.name, ".scope");
  if (IsBelow(placement.cpuset_cgroup, hierarchy.root())) dir = placement.cpuset_cgroup;
  // The whole directory is killed at the end of the task, so it must not be anybody else's.
  if (BaseName(dir) != placement.name && BaseName(dir) != placement.name + ".scope") {
    return absl::InvalidArgumentError(absl::StrCat("cgroup ", hierarchy.Short(dir),
                                                   ": is not the task's own, whose name is '",
                                                   placement.name, "'"));
  }
  return std::vector<Part>{{.controller = "", .dir = dir}};
}

}  // namespace

absl::StatusOr<std::vector<Part>> PlanParts(const Hierarchy& hierarchy,
                                            const Placement& placement) {
  RETURN_IF_ERROR(CheckName(placement.name));
  RETURN_IF_ERROR(CheckCpusetCgroup(hierarchy, placement.cpuset_cgroup));
  switch (hierarchy.version()) {
    case Version::kV1:
      return PlanV1(hierarchy, placement);
    case Version::kV2:
      return PlanV2(hierarchy, placement);
    case Version::kNone:
      break;
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "no cgroups at ", hierarchy.root(), ": mount the controllers (v1 or v2) on this node"));
}

absl::StatusOr<std::vector<Part>> PartsOf(const Hierarchy& hierarchy,
                                          const std::vector<std::string>& dirs) {
  std::vector<Part> parts;
  const auto add = [&](const char* controller, const std::string& dir, bool nomads) {
    if (!IsBelow(dir, hierarchy.ControllerPath(controller))) return;
    parts.push_back({.controller = controller, .dir = dir, .nomads = nomads});
  };
  for (const std::string& dir : dirs) {
    const size_t before = parts.size();
    if (hierarchy.version() == Version::kV2) {
      add("", dir, true);
    } else {
      for (const V1Controller& known : kV1Controllers) add(known.name, dir, known.nomads);
    }
    if (parts.size() == before) {
      return absl::InvalidArgumentError(
          absl::StrCat("cgroup ", dir, ": not below a controller of this host"));
    }
  }
  MarkNomads(parts);
  return parts;
}

}  // namespace jenkins_agent::cgroups
