// The root file system of a task that runs on an image: its layers, read-only, and a directory of
// the task's own on top (overlayfs). Mounted by descriptor; single-threaded programs only (the work
// directory is the process's).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

inline constexpr char kUpperDir[] = "upper";
inline constexpr char kWorkDir[] = "work";

// The directories of an overlay, each as a detached mount of its own.
struct OverlayParts {
  std::vector<Fd> layers;  // topmost first
  Fd writable;             // has kUpperDir and kWorkDir; invalid: the overlay can only be read
  Fd names;                // /proc/self/fd of a /proc that knows this process
};

// Called where the host's directories and its /proc are seen; makes the two directories, with umask
// 0. The files of layers keep their owners' numbers for those in `user_namespace`; -1: the host's.
// What is written belongs to the host's ids, "/" to `root_id`: on the disk no file of a task in a
// user namespace is root's.
// Unimplemented: the layers' file system has no id-mapped mounts.
absl::StatusOr<OverlayParts> OpenOverlayParts(const pb::ImageRoot& image, int user_namespace,
                                              uint32_t root_id);

// A detached overlay with `attributes` (MOUNT_ATTR_*). What is written is never synced
// ("volatile"): it is a task's own and ends with it. The parts are left mounted on `point`, a
// directory of a mount namespace of the caller's own: before Linux 6.15 overlayfs takes only what
// is mounted (clone_private_mount() in fs/namespace.c), and the file system itself, whose ids
// cannot be mapped, must be made of mounts whose ids are (Linux 5.19).
// ResourceExhausted: more layers than this kernel takes at once.
absl::StatusOr<Fd> NewOverlay(const OverlayParts& parts, int point, uint64_t attributes);

}  // namespace jenkins_agent
