#include "driver/config/isolation.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/status.h"
#include "driver/config/capabilities.h"
#include "driver/config/ulimit.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

constexpr int64_t kMinTmpfsBytes = 4096;  // a page

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::Status CheckMounts(const std::vector<MountBlock>& mounts) {
  std::set<std::string> targets;
  for (size_t i = 0; i < mounts.size(); ++i) {
    RETURN_IF_ERROR(InMount(i, ValidateMount(mounts[i])));
    if (!targets.insert(mounts[i].target).second) {
      return InMount(i,
                     Invalid("target: ", Quoted(mounts[i].target), " is the target of two mounts"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSize(int64_t bytes) {
  if (bytes >= kMinTmpfsBytes) return absl::OkStatus();
  return Invalid(bytes, " bytes are too small (allowed: ", kMinTmpfsBytes, " and more)");
}

absl::Status CheckNetworkMode(const std::string& mode) {
  if (mode.empty() || mode == kNetworkHost || mode == kNetworkNone) return absl::OkStatus();
  return Invalid(Quoted(mode),
                 " is not known (allowed: \"host\", \"none\"; for bridge and cni use the group's "
                 "network block)");
}

absl::Status CheckExtraHosts(const std::vector<std::string>& hosts) {
  for (size_t i = 0; i < hosts.size(); ++i) {
    RETURN_IF_ERROR(ParseExtraHost(hosts[i]).status(), "extra_hosts: element ", i);
  }
  return absl::OkStatus();
}

absl::Status CheckPrivileges(const Isolation& isolation) {
  RETURN_IF_ERROR(WantedCapabilities(isolation.cap_add, isolation.cap_drop).status());
  if (isolation.privileged && !(isolation.cap_add.empty() && isolation.cap_drop.empty())) {
    return Invalid(
        "privileged: already gives every capability; remove it, or cap_add and cap_drop");
  }
  if (isolation.privileged && isolation.userns) {
    return Invalid(
        "privileged and userns are both set; a user namespace takes away what privileged gives");
  }
  return absl::OkStatus();
}

absl::Status CheckReadonlyRootfs(std::optional<bool> readonly) {
  if (readonly.value_or(true)) return absl::OkStatus();
  return Invalid(
      "false is not possible with the host's programs, which all tasks share; write to /tmp, "
      "/local, /alloc or a mount");
}

absl::Status CheckRootfsSize(const Isolation& isolation, bool on_image) {
  if (!isolation.rootfs_size) return absl::OkStatus();
  if (!on_image) return Invalid("is of an image's root, and there is no image");
  if (isolation.readonly_rootfs.value_or(false)) {
    return Invalid("nothing is written with readonly_rootfs; remove one of them");
  }
  return CheckSize(*isolation.rootfs_size);
}

}  // namespace

std::vector<Option> OptionsFor(Isolation& isolation) {
  return {
      {"mount",
       OptionBlockList{[&isolation] { return OptionsFor(isolation.mounts.emplace_back()); }},
       "further files and directories in the sandbox, one block each"},
      {"tmp_size", &isolation.tmp_size,
       "most bytes in `/tmp`, which count as the task's memory; left out: a tenth of its memory, "
       "at least 64 MiB"},
      {"shm_size", &isolation.shm_size,
       "most bytes in `/dev/shm`, which count as the task's memory"},
      {"ulimit", &isolation.ulimit,
       "resource limits, `{ nofile = \"SOFT:HARD\" }` or one number for both, `-1` for none; up to "
       "the host's own hard limits"},
      {"hostname", &isolation.hostname,
       "host name in the sandbox; left out: made from the allocation's name"},
      {"extra_hosts", &isolation.extra_hosts, "lines for `/etc/hosts`, each `NAME:ADDRESS`"},
      {"network_mode", &isolation.network_mode,
       "`host`, or `none`: nothing but a loopback of its own; left out: the group's `network` "
       "block, without one the host's network"},
      {"cap_add", &isolation.cap_add,
       "Linux capabilities for the program, such as `net_admin`, or `all`; within the plugin's "
       "`allow_caps`"},
      {"cap_drop", &isolation.cap_drop,
       "capabilities to leave out of `cap_add = [\"all\"]`; without `cap_add` there are none to "
       "drop"},
      {"privileged", &isolation.privileged,
       "every capability, every device, no system call filter, nothing of `/proc` and `/sys` "
       "hidden; needs the plugin's `allow_privileged`"},
      {"readonly_rootfs", &isolation.readonly_rootfs,
       "whether the root file system is read-only; with the host's programs it always is, with an "
       "image only if asked for"},
      {"rootfs_size", &isolation.rootfs_size,
       "most bytes that the task writes into its image's root; they count as its memory then; left "
       "out: on the disk of `state_dir`, without a limit"},
      {"userns", &isolation.userns,
       "a user namespace of its own: the program's user, also root, is a user without any rights "
       "on the host; files keep their owners by id-mapped mounts"},
  };
}

std::vector<Option> OptionsFor(IsolationPolicy& policy) {
  return {
      {"allow_privileged", &policy.allow_privileged, "whether a job may set `privileged`"},
      {"allow_caps", &policy.allow_caps,
       "capabilities that a job may name in `cap_add`; `all` for every one"},
      {"allow_host_paths", &policy.allow_host_paths,
       "directories or files of the host that a job may name as `mount.source`, with all below "
       "them"},
  };
}

absl::StatusOr<ExtraHost> ParseExtraHost(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  if (parts.first.empty() || parts.second.empty()) {
    return Invalid(Quoted(text), " is not NAME:ADDRESS");
  }
  RETURN_IF_ERROR(CheckHostName(parts.first));
  RETURN_IF_ERROR(CheckIpAddress(parts.second));
  return ExtraHost{std::string(parts.first), std::string(parts.second)};
}

absl::Status ValidateIsolation(const Isolation& isolation, bool on_image) {
  RETURN_IF_ERROR(CheckMounts(isolation.mounts));
  if (isolation.tmp_size) RETURN_IF_ERROR(CheckSize(*isolation.tmp_size), "tmp_size");
  RETURN_IF_ERROR(CheckSize(isolation.shm_size), "shm_size");
  RETURN_IF_ERROR(ParseUlimits(isolation.ulimit).status(), "ulimit");
  if (!isolation.hostname.empty()) {
    RETURN_IF_ERROR(CheckHostName(isolation.hostname), "hostname");
  }
  RETURN_IF_ERROR(CheckExtraHosts(isolation.extra_hosts));
  RETURN_IF_ERROR(CheckNetworkMode(isolation.network_mode), "network_mode");
  RETURN_IF_ERROR(CheckPrivileges(isolation));
  RETURN_IF_ERROR(CheckRootfsSize(isolation, on_image), "rootfs_size");
  if (on_image) return absl::OkStatus();
  return Annotate(CheckReadonlyRootfs(isolation.readonly_rootfs), "readonly_rootfs");
}

absl::Status ValidatePolicy(const IsolationPolicy& policy) {
  RETURN_IF_ERROR(ParseCapabilities(policy.allow_caps).status(), "allow_caps");
  for (const std::string& path : policy.allow_host_paths) {
    RETURN_IF_ERROR(CheckAbsolutePath(path), "allow_host_paths");
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
