// Mounts by descriptor (Linux 5.12): a mount is made detached, gets its flags, and is then put on a
// target that was looked up inside the new root. No path is used twice, no mount is ever visible
// without its flags, and no symlink of a job leads out of its root.
//
// Every function acts at once and leaves nothing behind when it fails, except directories made on
// the way to a target. Single-threaded programs only (umask).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

using MountOptions = std::vector<std::pair<std::string, std::string>>;

// A new file system of `type`, detached. `attributes`: MOUNT_ATTR_*.
absl::StatusOr<Fd> NewFileSystem(const std::string& type, const MountOptions& options,
                                 uint64_t attributes);
absl::StatusOr<Fd> NewTmpfs(uint64_t size_bytes, mode_t mode, uid_t uid, gid_t gid,
                            uint64_t attributes);

// A detached, private copy of what is mounted at a host path, submounts included, with `attributes`
// set on all of it. NotFound when the path does not exist.
absl::StatusOr<Fd> CloneTree(const std::string& source, uint64_t attributes);
// The same of an open O_PATH descriptor of this mount namespace.
absl::StatusOr<Fd> CloneTree(int source_fd, uint64_t attributes);

absl::Status SetAttributes(int mount_fd, uint64_t attributes);

// Puts a detached mount on an open directory or file.
absl::Status Attach(int mount_fd, int target_fd);

// O_PATH descriptor of `path`, links followed as if `root_fd` were "/". NotFound when missing.
absl::StatusOr<Fd> OpenInRoot(int root_fd, const std::string& path);
// The same for a directory that is made when missing (root's, 0755), with its parents.
absl::StatusOr<Fd> MakeDirectoryInRoot(int root_fd, const std::string& path);
// The same for a file; a missing one is made empty.
absl::StatusOr<Fd> MakeFileInRoot(int root_fd, const std::string& path);

// "/a/b" -> {"/a", "b"}. InvalidArgument unless absolute, without "." and ".." and not "/".
absl::StatusOr<std::pair<std::string, std::string>> SplitTarget(const std::string& path);

}  // namespace jenkins_agent
