#include "cgroups/hierarchy.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent::cgroups {
namespace {

constexpr size_t kMaxMountinfoBytes = 16 << 20;  // ~100 bytes a mount, a few mounts a task

struct Mount {
  std::string root;  // the directory of the file system that is mounted
  std::string target;
  std::string type;
  std::string super_options;
};

// Octal escapes of blanks and backslashes: "\040".
std::string Unescape(absl::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                 (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// proc(5): "id parent major:minor root target options [optional...] - type source super_options".
std::vector<Mount> ParseMountinfo(absl::string_view text) {
  std::vector<Mount> mounts;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 4) continue;
    mounts.push_back({.root = Unescape(fields[3]),
                      .target = Unescape(fields[4]),
                      .type = std::string(dash[1]),
                      .super_options = std::string(dash[3])});
  }
  return mounts;
}

// cgroups(7): "id:controller,controller:path"; cgroup2 is "0::path", here under the key "".
std::map<std::string, std::string> ParseProcCgroup(absl::string_view text) {
  std::map<std::string, std::string> paths;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    for (absl::string_view controller : absl::StrSplit(fields[1], ',')) {
      paths[std::string(controller)] = std::string(fields[2]);
    }
  }
  return paths;
}

// Where `path` of /proc/self/cgroup is seen below the mount. A path that the mount does not show
// (a cgroup namespace prints "/.." for it) counts as the mount's own root.
std::string Below(const Mount& mount, absl::string_view path) {
  if (absl::StrContains(path, "..")) return mount.target;
  if (mount.root != "/" && (path == mount.root || absl::StartsWith(path, mount.root + "/"))) {
    path.remove_prefix(mount.root.size());
  }
  absl::ConsumeSuffix(&path, "/");
  return absl::StrCat(mount.target, path);
}

std::string PathOf(const std::map<std::string, std::string>& paths, const std::string& key) {
  const auto found = paths.find(key);
  return found == paths.end() ? "" : found->second;
}

constexpr std::array kControllers = {"freezer", "memory", "cpu",     "cpuacct",
                                     "cpuset",  "pids",   "devices", "blkio"};

bool IsController(absl::string_view name) {
  return std::find(kControllers.begin(), kControllers.end(), name) != kControllers.end();
}

}  // namespace

absl::StatusOr<Hierarchy> Hierarchy::Detect(const std::string& proc_root,
                                            const std::string& cgroup_root) {
  ASSIGN_OR_RETURN(const std::string mountinfo,
                   ReadFile(proc_root + "/self/mountinfo", kMaxMountinfoBytes));
  ASSIGN_OR_RETURN(const std::string own, ReadFile(proc_root + "/self/cgroup"));
  const std::vector<Mount> mounts = ParseMountinfo(mountinfo);
  const std::map<std::string, std::string> outer = ParseProcCgroup(own);

  Hierarchy hierarchy;
  hierarchy.root_ = cgroup_root;
  const Mount* top = nullptr;  // the last mount on a path is the one that is seen
  for (const Mount& mount : mounts) {
    if (mount.target == cgroup_root) top = &mount;
  }
  if (top == nullptr) return hierarchy;

  if (top->type == "cgroup2") {
    hierarchy.version_ = Version::kV2;
    const std::vector<absl::string_view> options = absl::StrSplit(top->super_options, ',');
    hierarchy.namespaces_delegate_ =
        std::find(options.begin(), options.end(), "nsdelegate") != options.end();
    const Place place = {.mount_point = cgroup_root, .outer = Below(*top, PathOf(outer, ""))};
    hierarchy.places_[""] = place;
    ASSIGN_OR_RETURN(const std::string controllers, ReadFile(cgroup_root + "/cgroup.controllers"));
    for (absl::string_view name :
         absl::StrSplit(controllers, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
      hierarchy.places_[std::string(name)] = place;
    }
    return hierarchy;
  }

  if (top->type != "tmpfs") return hierarchy;
  for (const Mount& mount : mounts) {
    if (mount.type != "cgroup" || !absl::StartsWith(mount.target, cgroup_root + "/")) continue;
    for (absl::string_view option : absl::StrSplit(mount.super_options, ',')) {
      if (!IsController(option)) continue;  // "rw", "name=systemd", ...
      const std::string name(option);
      hierarchy.places_.try_emplace(
          name, Place{.mount_point = mount.target, .outer = Below(mount, PathOf(outer, name))});
    }
  }
  if (!hierarchy.places_.empty()) hierarchy.version_ = Version::kV1;
  return hierarchy;
}

std::string Hierarchy::ControllerPath(const std::string& controller) const {
  const auto found = places_.find(controller);
  return found == places_.end() ? "" : found->second.mount_point;
}

std::string Hierarchy::OuterPath(const std::string& controller) const {
  const auto found = places_.find(controller);
  return found == places_.end() ? "" : found->second.outer;
}

std::string Hierarchy::Short(const std::string& path) const {
  return std::string(absl::StripPrefix(path, root_ + "/"));
}

}  // namespace jenkins_agent::cgroups
