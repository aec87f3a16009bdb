#include "driver/task/disk_space.h"

#include <sys/statvfs.h>

#include "absl/strings/str_cat.h"
#include "driver/base/recoverable.h"
#include "driver/base/status.h"

namespace jenkins_agent {

absl::Status CheckDiskSpace(absl::string_view what, const std::string& directory) {
  struct statvfs disk;
  if (::statvfs(directory.c_str(), &disk) != 0) {
    return ErrnoStatus(absl::StrCat(what, " ", directory));
  }
  const uint64_t free_bytes = uint64_t{disk.f_bavail} * disk.f_frsize;
  if (free_bytes < kMinFreeBytes) {
    return MakeRecoverable(absl::ResourceExhaustedError(
        absl::StrCat(what, " ", directory, ": the disk is full: ", free_bytes,
                     " bytes are free, a task needs ", kMinFreeBytes, "; free some space there")));
  }
  // File systems that make inodes as they need them (btrfs) say 0 of 0.
  if (disk.f_files > 0 && disk.f_favail < kMinFreeInodes) {
    return MakeRecoverable(absl::ResourceExhaustedError(absl::StrCat(
        what, " ", directory, ": the disk is full: ", uint64_t{disk.f_favail},
        " inodes are free, a task needs ", kMinFreeInodes, "; remove some files there")));
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
