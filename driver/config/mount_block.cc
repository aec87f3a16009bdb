#include "driver/config/mount_block.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/sandbox_paths.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

constexpr const char* kPropagations[] = {"private", "rprivate", "slave",
                                         "rslave",  "shared",   "rshared"};
constexpr int64_t kMinTmpfsBytes = 4096;  // a page
constexpr int64_t kMaxMode = 07777;

constexpr const char* kReservedTrees[] = {"/proc", "/sys", "/dev", kRunDir};

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

bool IsAtOrBelow(absl::string_view path, absl::string_view tree) {
  return path == tree || absl::StartsWith(path, absl::StrCat(tree, "/"));
}

absl::Status CheckType(const std::string& type) {
  if (type == kMountBind || type == kMountTmpfs) return absl::OkStatus();
  if (type.empty()) return Invalid("is not set (allowed: \"bind\", \"tmpfs\")");
  return Invalid(Quoted(type),
                 " is not offered (allowed: \"bind\", \"tmpfs\"; for volumes use the job's "
                 "volume and volume_mount blocks)");
}

absl::Status CheckSource(const std::string& source) {
  if (source.empty()) return Invalid("is not set; a bind mount needs a file or directory");
  if (source.size() > kMaxPathBytes) {
    return Invalid(source.size(), " bytes are too long (allowed: up to ", kMaxPathBytes, ")");
  }
  const absl::string_view path = source;
  const size_t first = path.front() == '/' ? 1 : 0;
  for (const absl::string_view part : absl::StrSplit(path.substr(first), '/')) {
    if (part.empty() || part == "." || part == "..") {
      return Invalid(Quoted(source), " is not a plain path: no '//', '.', '..' or '/' at the end");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBind(const MountBlock& mount) {
  RETURN_IF_ERROR(CheckSource(mount.source), "source");
  if (mount.has_tmpfs_options) return Invalid("tmpfs_options: belongs to type = \"tmpfs\"");
  if (mount.propagation.empty() || std::find(std::begin(kPropagations), std::end(kPropagations),
                                             mount.propagation) != std::end(kPropagations)) {
    return absl::OkStatus();
  }
  return Invalid("bind_options.propagation: ", Quoted(mount.propagation),
                 " is not known (allowed: private, rprivate, slave, rslave, shared, rshared)");
}

absl::Status CheckTmpfs(const MountBlock& mount) {
  if (!mount.source.empty()) return Invalid("source: a tmpfs has none; remove it");
  if (mount.has_bind_options) return Invalid("bind_options: belongs to type = \"bind\"");
  if (mount.tmpfs_size.has_value() && *mount.tmpfs_size < kMinTmpfsBytes) {
    return Invalid("tmpfs_options.size: ", *mount.tmpfs_size,
                   " bytes are too small (allowed: ", kMinTmpfsBytes, " and more)");
  }
  if (mount.tmpfs_mode < 1 || mount.tmpfs_mode > kMaxMode) {
    return Invalid("tmpfs_options.mode: ", mount.tmpfs_mode, " is out of range (allowed: 1 to ",
                   kMaxMode, ", in decimal: 1023 is 01777)");
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Option> OptionsFor(MountBlock& mount) {
  return {
      {"type", &mount.type, "`bind` or `tmpfs`"},
      {"source", &mount.source,
       "of a bind: a path below the task's directory that begins with `local/`, `secrets/` or "
       "`alloc/`, or an absolute path of the host within the plugin's `allow_host_paths`; symbolic "
       "links on the way are not followed"},
      {"target", &mount.target, "where it is seen in the sandbox, an absolute path"},
      {"readonly", &mount.readonly, "whether the task may only read it"},
      {"bind_options",
       OptionBlock{&mount.has_bind_options,
                   {{"propagation", &mount.propagation,
                     "`rprivate` (left out), `rslave`: later mounts of the host below `source` "
                     "appear in the sandbox, or `rshared`: also the other way"}}},
       "of a bind"},
      {"tmpfs_options",
       OptionBlock{&mount.has_tmpfs_options,
                   {{"size", &mount.tmpfs_size,
                     "most bytes, which count as the task's memory; left out: as `/tmp`"},
                    {"mode", &mount.tmpfs_mode,
                     "permissions of its top directory as a decimal number: `1023` is 01777"}}},
       "of a tmpfs; programs on it cannot be executed, as docker has it"},
  };
}

absl::Status InMount(size_t index, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("mount[", index, "].", status.message()));
}

absl::Status CheckMountTarget(absl::string_view target) {
  if (target.empty()) return Invalid("is not set; name an absolute path in the sandbox");
  RETURN_IF_ERROR(CheckAbsolutePath(target));
  if (target == "/") return Invalid("\"/\" is the sandbox itself; name a directory below it");
  for (const absl::string_view part : absl::StrSplit(target.substr(1), '/')) {
    if (part.empty() || part == ".") {
      return Invalid(Quoted(target), " is not a plain path: no '//', '.' or '/' at the end");
    }
  }
  for (const char* tree : kReservedTrees) {
    if (IsAtOrBelow(target, tree) || IsAtOrBelow(tree, target)) {
      return Invalid(Quoted(target), " would change what the sandbox needs in ", tree,
                     " (allowed: paths beside /proc, /sys, /dev and ", kRunDir, ")");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateMount(const MountBlock& mount) {
  RETURN_IF_ERROR(CheckType(mount.type), "type");
  RETURN_IF_ERROR(CheckMountTarget(mount.target), "target");
  return mount.type == kMountBind ? CheckBind(mount) : CheckTmpfs(mount);
}

}  // namespace jenkins_agent
