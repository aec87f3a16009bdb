// One `mount { }` of a job, in the shape of Nomad's docker driver. A value, with its option table
// and the checks that need neither host nor policy. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "driver/config/options.h"

namespace jenkins_agent {

inline constexpr char kMountBind[] = "bind";
inline constexpr char kMountTmpfs[] = "tmpfs";

struct MountBlock {
  std::string type = "";    // kMountBind or kMountTmpfs
  std::string source = "";  // of a bind; relative to the task's directory, or absolute
  std::string target = "";
  bool readonly = false;

  bool has_bind_options = false;
  std::string propagation = "";  // docker's names; empty: rprivate

  bool has_tmpfs_options = false;
  std::optional<int64_t> tmpfs_size = {};  // bytes; nothing: as /tmp
  int64_t tmpfs_mode = 01777;
};

// The rows point into `mount`.
std::vector<Option> OptionsFor(MountBlock& mount);

// Errors start with the option's name inside the block.
absl::Status ValidateMount(const MountBlock& mount);

// An error about an option of the block becomes one about the job's: "mount[2].source: ...".
absl::Status InMount(size_t index, const absl::Status& status);

// A target may neither hide nor enter what the sandbox itself needs: the kernel's file systems, and
// the directory in which pid 1 hands over the agent's secret. Also for Nomad's volumes.
absl::Status CheckMountTarget(absl::string_view target);

}  // namespace jenkins_agent
