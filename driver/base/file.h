// Small file operations with Status. Sizes are bounded: nothing here reads without a limit.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

// open(2) with O_CLOEXEC added; the message names the path.
absl::StatusOr<Fd> OpenFile(const std::string& path, int flags, mode_t mode = 0);
// openat(2) with O_CLOEXEC added, relative to a directory descriptor.
absl::StatusOr<Fd> OpenAt(int dir_fd, const std::string& path, int flags, mode_t mode = 0);
// openat2(2), Linux 5.6. `resolve`: RESOLVE_BENEATH, RESOLVE_IN_ROOT, ... For paths that are not
// ours.
absl::StatusOr<Fd> OpenAt2(int dir_fd, const std::string& path, uint64_t flags, uint64_t resolve,
                           mode_t mode = 0);

// Whole content; OutOfRange when it is longer than `limit` bytes.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit = 1 << 20);
absl::StatusOr<std::string> ReadFileAt(int dir_fd, const std::string& path, size_t limit = 1 << 20);
absl::StatusOr<std::string> ReadAll(int fd, size_t limit);

// Writes all bytes to a descriptor (retries short writes and EINTR).
absl::Status WriteAll(int fd, absl::string_view data);
// Replaces dir/name so that a reader sees the old or the new content, never half of it, also after
// a power cut: temporary file, fsync, rename, fsync of the directory.
absl::Status WriteFileAtomicAt(int dir_fd, const std::string& name, absl::string_view data,
                               mode_t mode = 0600);
absl::Status WriteFileAtomic(const std::string& path, absl::string_view data, mode_t mode = 0600);
// The same without the fsyncs, for what a reboot makes void: never half of it to a reader, but not
// safe from a power cut. A start that waits for the disk takes milliseconds more.
absl::Status ReplaceFileAt(int dir_fd, const std::string& name, absl::string_view data,
                           mode_t mode = 0600);

// mkdir -p. New directories get `mode`.
absl::Status MakeDirs(const std::string& path, mode_t mode = 0755);
// rm -r of a tree that may be hostile: never follows a symlink, never leaves the tree and never
// crosses a mount point. A path that does not exist is fine.
absl::Status RemoveTree(const std::string& path);

// A memfd that nobody can change any more (F_SEAL_WRITE|SHRINK|GROW|SEAL), CLOEXEC.
absl::StatusOr<Fd> MakeSealedMemfd(const std::string& name, absl::string_view content);

}  // namespace jenkins_agent
