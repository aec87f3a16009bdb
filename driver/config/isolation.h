// What a job may change about its sandbox, in docker's names. A value, with its option table and
// the checks that need neither the host nor the operator's policy. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/config/mount_block.h"
#include "driver/config/options.h"

namespace jenkins_agent {

inline constexpr char kNetworkHost[] = "host";
inline constexpr char kNetworkNone[] = "none";

inline constexpr int64_t kDefaultShmBytes = int64_t{64} << 20;  // docker's

struct Isolation {
  std::vector<MountBlock> mounts = {};
  std::optional<int64_t> tmp_size = {};  // bytes; nothing: a tenth of the task's memory
  int64_t shm_size = kDefaultShmBytes;
  std::map<std::string, std::string> ulimit = {};
  std::string hostname = "";
  std::vector<std::string> extra_hosts = {};  // NAME:ADDRESS
  std::string network_mode =
      "";  // kNetworkHost, kNetworkNone; empty: Nomad's network block decides
  std::vector<std::string> cap_add = {};
  std::vector<std::string> cap_drop = {};
  bool privileged = false;
  std::optional<bool> readonly_rootfs = {};
  std::optional<int64_t> rootfs_size = {};  // bytes; nothing: on the disk, without a limit
  bool userns = false;
};

// What the operator lets jobs do, from the plugin's configuration.
struct IsolationPolicy {
  bool allow_privileged = false;
  std::vector<std::string> allow_caps = {};        // as cap_add
  std::vector<std::string> allow_host_paths = {};  // absolute; "/" is everything
};

struct ExtraHost {
  std::string name;
  std::string address;
};

// The rows point into `isolation`.
std::vector<Option> OptionsFor(Isolation& isolation);
std::vector<Option> OptionsFor(IsolationPolicy& policy);

// Errors start with the option's path.
// `on_image`: the job does not run on the host's programs.
absl::Status ValidateIsolation(const Isolation& isolation, bool on_image = false);
absl::Status ValidatePolicy(const IsolationPolicy& policy);

// NAME:ADDRESS, split at the first colon: an IPv6 address has more of them.
absl::StatusOr<ExtraHost> ParseExtraHost(absl::string_view text);

}  // namespace jenkins_agent
