#include "driver/task/plan_mounts.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;

using NomadMount = hashicorp::nomad::plugins::drivers::proto::Mount;
using NomadDevice = hashicorp::nomad::plugins::drivers::proto::Device;

constexpr char kDevices[] = "/dev/";
// Of a privileged task. A large host has a few hundred.
constexpr size_t kMaxDevices = 4096;
constexpr int kMaxDeviceDepth = 4;  // /dev/bus/usb/001/002
// The sandbox has its own of these.
const std::set<std::string> kOwnDevices = {"null", "zero", "full", "random", "urandom", "tty",
                                           "ptmx", "pts",  "shm",  "mqueue", "console"};

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

bool IsAtOrBelow(absl::string_view path, absl::string_view tree) {
  return tree == "/" || path == tree || absl::StartsWith(path, absl::StrCat(tree, "/"));
}

struct PlannedMount {
  std::string option;  // for errors
  pb::MountSpec spec;
};

// ---- volumes of Nomad ----

absl::StatusOr<pb::MountSpec::Propagation> VolumePropagation(const std::string& mode) {
  if (mode.empty() || mode == "private") return pb::MountSpec::PRIVATE;
  if (mode == "host-to-task") return pb::MountSpec::SLAVE;
  if (mode == "bidirectional") return pb::MountSpec::SHARED;
  return Invalid("propagation_mode: ", Quoted(mode),
                 " is not known (allowed: private, host-to-task, bidirectional)");
}

absl::StatusOr<pb::MountSpec> VolumeMount(const NomadMount& volume) {
  RETURN_IF_ERROR(CheckMountTarget(volume.task_path()), "destination");
  ASSIGN_OR_RETURN(const auto propagation, VolumePropagation(volume.propagation_mode()));
  pb::MountSpec mount;
  mount.set_kind(pb::MountSpec::BIND);
  mount.set_source(volume.host_path());
  mount.set_target(volume.task_path());
  mount.set_read_only(volume.readonly());
  mount.set_propagation(propagation);
  mount.set_no_links(true);
  return mount;
}

// ---- the job's mount blocks ----

pb::MountSpec::Propagation BlockPropagation(const std::string& name) {
  if (absl::EndsWith(name, "slave")) return pb::MountSpec::SLAVE;
  if (absl::EndsWith(name, "shared")) return pb::MountSpec::SHARED;
  return pb::MountSpec::PRIVATE;
}

absl::string_view WithoutSlash(const std::string& path) {
  const absl::string_view stripped = absl::StripSuffix(path, "/");
  return stripped.empty() ? absl::string_view("/") : stripped;
}

absl::Status SetHostSource(const std::string& source, const IsolationPolicy& policy,
                           pb::MountSpec& mount) {
  if (IsAtOrBelow(source, "/proc")) {
    return Invalid(Quoted(source), " is the host's; the sandbox has a /proc of its own");
  }
  for (const std::string& allowed : policy.allow_host_paths) {
    const absl::string_view tree = WithoutSlash(allowed);
    if (!IsAtOrBelow(source, tree)) continue;
    mount.set_source(source);
    mount.set_base(std::string(tree));
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(absl::StrCat(
      Quoted(source), " is a path of the host that the plugin's option allow_host_paths = [",
      absl::StrJoin(policy.allow_host_paths, ", "),
      "] does not cover; use a path below local/, secrets/ or alloc/, or let the operator add it"));
}

// The allocation's directory also holds what is Nomad's own (private/), hence the list.
absl::Status SetTaskSource(const PlanInput& input, const std::string& source,
                           pb::MountSpec& mount) {
  const std::string& alloc_dir = input.task.alloc_dir();
  const absl::string_view first =
      absl::string_view(source).substr(0, std::min(source.find('/'), source.size()));
  if (first == "alloc") {
    mount.set_source(absl::StrCat(alloc_dir, "/", source));
  } else if (first == "local" || first == "secrets") {
    mount.set_source(absl::StrCat(alloc_dir, "/", input.task.name(), "/", source));
  } else {
    return Invalid(Quoted(source),
                   " is not below local/, secrets/ or alloc/, which are the task's own");
  }
  mount.set_base(alloc_dir);
  return absl::OkStatus();
}

absl::StatusOr<pb::MountSpec> BindMount(const PlanInput& input, const MountBlock& block) {
  pb::MountSpec mount;
  mount.set_kind(pb::MountSpec::BIND);
  const absl::Status source = absl::StartsWith(block.source, "/")
                                  ? SetHostSource(block.source, input.policy, mount)
                                  : SetTaskSource(input, block.source, mount);
  RETURN_IF_ERROR(source, "source");
  mount.set_propagation(BlockPropagation(block.propagation));
  return mount;
}

absl::StatusOr<pb::MountSpec> TmpfsMount(const PlanInput& input, const MountBlock& block,
                                         uint64_t default_bytes) {
  const uint64_t size = block.tmpfs_size.value_or(static_cast<int64_t>(default_bytes));
  RETURN_IF_ERROR(CheckAgainstMemory(input.host, size), "tmpfs_options.size");
  pb::MountSpec mount;
  mount.set_kind(pb::MountSpec::TMPFS);
  mount.set_size_bytes(size);
  mount.set_mode(block.tmpfs_mode);
  mount.set_no_exec(true);  // docker's default
  return mount;
}

absl::StatusOr<pb::MountSpec> BlockMount(const PlanInput& input, const MountBlock& block,
                                         uint64_t tmp_size_bytes) {
  absl::StatusOr<pb::MountSpec> mount =
      block.type == kMountBind ? BindMount(input, block) : TmpfsMount(input, block, tmp_size_bytes);
  if (!mount.ok()) return mount.status();
  mount->set_target(block.target);
  mount->set_read_only(block.readonly);
  mount->set_no_links(true);
  return mount;
}

// Whatever is mounted below a shared mount would appear on the host as well.
absl::Status CheckTogether(const std::vector<PlannedMount>& mounts) {
  for (size_t i = 1; i < mounts.size(); ++i) {
    for (size_t above = 0; above < i; ++above) {
      const std::string& target = mounts[i].spec.target();
      const std::string& tree = mounts[above].spec.target();
      if (target == tree) {
        return Invalid(mounts[i].option, ": ", Quoted(target), " is the target of two mounts");
      }
      if (mounts[above].spec.propagation() == pb::MountSpec::SHARED && IsAtOrBelow(target, tree)) {
        return Invalid(mounts[i].option, ": ", Quoted(target), " lies in ", Quoted(tree),
                       ", whose shared propagation would show it on the host");
      }
    }
  }
  return absl::OkStatus();
}

// ---- devices ----

pb::DeviceSpec NodeOf(const struct stat& found, const std::string& path) {
  pb::DeviceSpec device;
  device.set_path(path);
  device.set_block(S_ISBLK(found.st_mode));
  device.set_major_number(major(found.st_rdev));
  device.set_minor_number(minor(found.st_rdev));
  return device;
}

bool IsDevice(const struct stat& found) { return S_ISCHR(found.st_mode) || S_ISBLK(found.st_mode); }

absl::Status CheckDevicePath(const std::string& path) {
  absl::string_view below = path;
  if (!absl::ConsumePrefix(&below, kDevices) || below.empty()) {
    return Invalid(Quoted(path),
                   " is not below /dev, the only place in which the task can open a device");
  }
  for (const absl::string_view part : absl::StrSplit(below, '/')) {
    if (part.empty() || part == "." || part == "..") {
      return Invalid(Quoted(path), " is not a plain path: no '//', '.', '..' or '/' at the end");
    }
  }
  if (kOwnDevices.contains(std::string(below.substr(0, below.find('/'))))) {
    return Invalid(Quoted(path), " is the sandbox's own");
  }
  return absl::OkStatus();
}

// The node is the task user's, with the permissions that Nomad assigned: whoever may have a device
// can use it, and the user's groups are the host's.
absl::StatusOr<pb::DeviceSpec> AssignedDevice(const PlanInput& input, const NomadDevice& asked) {
  RETURN_IF_ERROR(CheckDevicePath(asked.task_path()), "task path");
  const std::string& permissions = asked.cgroup_permissions();
  if (permissions.find_first_not_of("rwm") != std::string::npos) {
    return Invalid("permissions: ", Quoted(permissions), " (allowed: of \"rwm\")");
  }
  struct stat found = {};
  if (::stat(asked.host_path().c_str(), &found) != 0) return ErrnoStatus(asked.host_path());
  if (!IsDevice(found)) {
    return absl::FailedPreconditionError(absl::StrCat(asked.host_path(), " is no device"));
  }
  pb::DeviceSpec device = NodeOf(found, asked.task_path().substr(sizeof(kDevices) - 1));
  const bool read = absl::StrContains(permissions, 'r');
  const bool write = absl::StrContains(permissions, 'w');
  device.set_mode((read ? 0400 : 0) | (write ? 0200 : 0));
  device.set_uid(input.user.uid());
  device.set_gid(input.user.gid());
  device.set_cgroup_permissions(permissions);
  return device;
}

// As docker has it for privileged containers: with the host's owners and permissions.
absl::StatusOr<std::vector<pb::DeviceSpec>> AllDevices() {
  std::vector<pb::DeviceSpec> devices;
  std::error_code error;
  for (fs::recursive_directory_iterator it(kDevices, error), end; !error && it != end;
       it.increment(error)) {
    const std::string path = it->path().string().substr(sizeof(kDevices) - 1);
    struct stat found = {};
    if (kOwnDevices.contains(path) || it.depth() >= kMaxDeviceDepth) {
      it.disable_recursion_pending();
    } else if (::lstat(it->path().c_str(), &found) == 0 && IsDevice(found)) {
      if (devices.size() >= kMaxDevices) {
        return absl::FailedPreconditionError(
            absl::StrCat("privileged: the host has more than ", kMaxDevices, " devices"));
      }
      pb::DeviceSpec device = NodeOf(found, path);
      device.set_mode(found.st_mode & 07777);
      device.set_uid(found.st_uid);
      device.set_gid(found.st_gid);
      device.set_cgroup_permissions("rwm");
      devices.push_back(std::move(device));
    }
  }
  return devices;
}

}  // namespace

absl::StatusOr<std::vector<pb::MountSpec>> PlanMounts(const PlanInput& input,
                                                      uint64_t tmp_size_bytes) {
  std::vector<PlannedMount> mounts;
  for (const NomadMount& volume : input.task.mounts()) {
    const std::string option = absl::StrCat("volume_mount ", volume.task_path());
    ASSIGN_OR_RETURN(pb::MountSpec mount, VolumeMount(volume), option);
    mounts.push_back({absl::StrCat(option, ": destination"), std::move(mount)});
  }
  const std::vector<MountBlock>& blocks = input.options.isolation.mounts;
  for (size_t i = 0; i < blocks.size(); ++i) {
    absl::StatusOr<pb::MountSpec> mount = BlockMount(input, blocks[i], tmp_size_bytes);
    if (!mount.ok()) return InMount(i, mount.status());
    mounts.push_back({absl::StrCat("mount[", i, "].target"), *std::move(mount)});
  }
  std::stable_sort(mounts.begin(), mounts.end(), [](const PlannedMount& a, const PlannedMount& b) {
    return a.spec.target() < b.spec.target();
  });
  RETURN_IF_ERROR(CheckTogether(mounts));
  std::vector<pb::MountSpec> specs;
  for (PlannedMount& mount : mounts) specs.push_back(std::move(mount.spec));
  return specs;
}

absl::StatusOr<std::vector<pb::DeviceSpec>> PlanDevices(const PlanInput& input) {
  std::vector<pb::DeviceSpec> devices;
  if (input.options.isolation.privileged) {
    ASSIGN_OR_RETURN(devices, AllDevices());
  }
  for (const NomadDevice& asked : input.task.devices()) {
    ASSIGN_OR_RETURN(pb::DeviceSpec device, AssignedDevice(input, asked), "device ",
                     asked.host_path());
    devices.erase(
        std::remove_if(devices.begin(), devices.end(),
                       [&](const pb::DeviceSpec& other) { return other.path() == device.path(); }),
        devices.end());
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace jenkins_agent
