// Mounts by descriptor (Linux 5.12): a mount is made detached, gets its flags, and is then put on a
// target that was looked up inside the new root. No path is used twice, no mount is ever visible
// without its flags, and no symlink of a job leads out of its root.
//
// Every function acts at once and leaves nothing behind when it fails, except directories made on
// the way to a target. Single-threaded programs only (umask).
#pragma once

#include <sys/mount.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

// kRefuse: for targets that a job chose, in directories in which it may have left links to where
// the sandbox keeps what is not the job's (/proc, /run/jenkins-agent).
enum class Links { kFollowInRoot, kRefuse };

using MountOptions = std::vector<std::pair<std::string, std::string>>;

// A new file system of `type`, detached. `attributes`: MOUNT_ATTR_*.
absl::StatusOr<Fd> NewFileSystem(const std::string& type, const MountOptions& options,
                                 uint64_t attributes);
absl::StatusOr<Fd> NewTmpfs(uint64_t size_bytes, mode_t mode, uid_t uid, gid_t gid,
                            uint64_t attributes);

// A detached copy of what is mounted at a host path, submounts included, with `attributes` and
// `propagation` (MS_PRIVATE, MS_SLAVE, MS_SHARED) set on all of it. A copy of a mount that is not
// shared is nobody's slave. NotFound when the path does not exist.
absl::StatusOr<Fd> CloneTree(const std::string& source, uint64_t attributes,
                             uint64_t propagation = MS_PRIVATE);
// The same of an open O_PATH descriptor of this mount namespace.
absl::StatusOr<Fd> CloneTree(int source_fd, uint64_t attributes, uint64_t propagation = MS_PRIVATE);

absl::Status SetAttributes(int mount_fd, uint64_t attributes);

// Files of a detached tree keep their owners' numbers for those in `user_namespace` (Linux 5.12,
// mount_setattr(2)). Unimplemented when a file system in the tree cannot (overlayfs; tmpfs before
// Linux 6.3).
absl::Status MapIds(int mount_fd, int user_namespace);

// Makes the whole file system read-only, whichever mount it is reached by. Its devices stay usable.
absl::Status MakeFileSystemReadOnly(int mount_fd);

// Puts a detached mount on an open directory or file.
absl::Status Attach(int mount_fd, int target_fd);

// O_PATH descriptor of `path`, links followed as if `root_fd` were "/". NotFound when missing.
absl::StatusOr<Fd> OpenInRoot(int root_fd, const std::string& path);
// The same for a directory that is made when missing (root's, 0755), with its parents.
absl::StatusOr<Fd> MakeDirectoryInRoot(int root_fd, const std::string& path,
                                       Links links = Links::kFollowInRoot);
// The same for a file; a missing one is made empty.
absl::StatusOr<Fd> MakeFileInRoot(int root_fd, const std::string& path,
                                  Links links = Links::kFollowInRoot);

// O_PATH descriptor of `path` below an open directory; no link is followed, nothing leads out.
absl::StatusOr<Fd> OpenBelow(int directory_fd, const std::string& path);

// "/a/b" -> {"/a", "b"}. InvalidArgument unless absolute, without "." and ".." and not "/".
absl::StatusOr<std::pair<std::string, std::string>> SplitTarget(const std::string& path);

}  // namespace jenkins_agent
