// The plan of a sandbox's file system: on the host's programs, read-only, with an /etc made from an
// allow-list and everything else the task's own; or what is mounted on an image's root. Reads the
// host's tree, changes nothing; used by the plugin. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/base/sandbox_paths.h"
#include "driver/sandbox/host_entries.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

struct HostRootfs {
  // Nomad's directories of the allocation and the task, on the host: seen as /alloc, /alloc/logs
  // (read-only), /local, /secrets. "" = left out.
  std::string alloc_dir;
  std::string logs_dir;
  std::string local_dir;
  std::string secrets_dir;
  // Host directory seen read-only at kJarDir, readable for everybody; "" = none.
  std::string jar_dir;
  std::vector<std::string> extra_read_only;  // same path inside, e.g. a JDK under /opt
  // /etc/passwd and /etc/group to start from; nothing: the host's.
  std::optional<std::string> passwd = {};
  std::optional<std::string> group = {};
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::string user_name;
  std::string home;  // inside; made when it lies outside the directories above
  std::string hostname;
  uint64_t tmp_size_bytes = 0;  // 0 = the sandbox's default (64 MiB)
  uint64_t shm_size_bytes = 0;
  std::string resolv_conf_content;  // "" = the host's
  std::string hosts_content;        // "" = the host's, and a line for `hostname`
  std::string extra_hosts;          // lines added to it
  std::string host_root = "/";      // tests: a fake tree
  // Of a look at HostPlacesOf(host_root); null: the plan looks itself.
  std::shared_ptr<const HostEntries> host_entries = {};
};

// What a plan has to know of the host's tree.
HostPlaces HostPlacesOf(const std::string& host_root);

// In the order in which they are mounted; `shared` marks what does not depend on the task.
// InvalidArgument for paths that are not plain absolute ones and names that do not fit into passwd;
// FailedPrecondition for a host without /usr.
absl::StatusOr<std::vector<pb::MountSpec>> PlanHostRootfs(const HostRootfs& rootfs);

// What is mounted on an image's root, in the same order, with the same errors. All targets are to
// be there as real directories and files: whatever an image has in their places is hidden. FILE
// entries are for them to become. `extra_read_only`: the node's JDKs, which bring their settings.
absl::StatusOr<std::vector<pb::MountSpec>> PlanImageRootfs(const HostRootfs& rootfs);

// What /proc and /sys must not show or let change, whatever the root file system. Paths that this
// kernel lacks are harmless.
std::vector<std::string> DefaultMaskedPaths();
std::vector<std::string> DefaultReadOnlyPaths();

}  // namespace jenkins_agent
