// The root file system of a task that runs on an image: its layers, read-only, and a directory of
// the task's own on top (overlayfs). Mounted by descriptor; single-threaded programs only (the work
// directory is the process's).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

inline constexpr char kUpperDir[] = "upper";
inline constexpr char kWorkDir[] = "work";

// A detached overlay of `layers`, topmost first, with `attributes` (MOUNT_ATTR_*). `writable_dir`
// holds kUpperDir and kWorkDir, both empty; "": the overlay can only be read. What is written is
// never synced ("volatile"): it is a task's own and ends with it. Made in the mount namespace in
// which the directories are; they may be hidden or gone afterwards.
// ResourceExhausted: more layers than this kernel takes at once.
absl::StatusOr<Fd> NewOverlay(const std::vector<std::string>& layers,
                              const std::string& writable_dir, uint64_t attributes);

}  // namespace jenkins_agent
