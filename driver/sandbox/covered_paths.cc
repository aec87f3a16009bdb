#include "driver/sandbox/covered_paths.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <optional>
#include <string>

#include "driver/base/fd.h"
#include "driver/base/status.h"
#include "driver/sandbox/mount_fd.h"

namespace jenkins_agent {
namespace {

constexpr uint64_t kInertReadOnly =
    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY;
constexpr uint64_t kMaskBytes = 4096;

// A missing path needs no cover; which ones exist depends on the kernel.
absl::StatusOr<std::optional<Fd>> OpenIfExists(int root_fd, const std::string& path) {
  absl::StatusOr<Fd> fd = OpenInRoot(root_fd, path);
  if (absl::IsNotFound(fd.status())) return std::optional<Fd>();
  if (!fd.ok()) return fd.status();
  return std::optional<Fd>(*std::move(fd));
}

// What hidden paths look like: files are /dev/null, directories one shared empty tmpfs.
class Mask {
 public:
  explicit Mask(int root_fd) : root_fd_(root_fd) {}

  absl::Status Cover(int target_fd) {
    struct stat target = {};
    if (::fstat(target_fd, &target) != 0) return ErrnoStatus("look");
    ASSIGN_OR_RETURN(const Fd cover, S_ISDIR(target.st_mode) ? EmptyDirectory() : NullDevice());
    RETURN_IF_ERROR(Attach(cover.get(), target_fd));
    // Only a mount that hangs somewhere can be cloned (before Linux 6.15): the first one serves.
    if (S_ISDIR(target.st_mode) && !attached_) {
      ASSIGN_OR_RETURN(Fd kept, Duplicate(cover.get()));
      attached_ = std::move(kept);
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<Fd> EmptyDirectory() const {
    if (attached_) return CloneTree(attached_.get(), 0);
    ASSIGN_OR_RETURN(Fd empty, NewTmpfs(kMaskBytes, 0555, 0, 0, kInertReadOnly));
    RETURN_IF_ERROR(MakeFileSystemReadOnly(empty.get()));  // tasks may share it
    return empty;
  }

  absl::StatusOr<Fd> NullDevice() {
    if (!null_) {
      ASSIGN_OR_RETURN(null_, OpenNullDevice());
    }
    return CloneTree(null_.get(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  }

  // The device is checked, not its path: a link there would be bound over the secret instead.
  absl::StatusOr<Fd> OpenNullDevice() const {
    ASSIGN_OR_RETURN(Fd null, OpenInRoot(root_fd_, "/dev/null"));
    struct stat found = {};
    if (::fstat(null.get(), &found) != 0) return ErrnoStatus("look at /dev/null");
    if (!S_ISCHR(found.st_mode) || found.st_rdev != ::makedev(1, 3)) {
      return absl::FailedPreconditionError("/dev/null is not the null device");
    }
    return null;
  }

  int root_fd_;
  Fd attached_;
  Fd null_;
};

absl::Status ProtectPath(int target_fd) {
  ASSIGN_OR_RETURN(const Fd copy, CloneTree(target_fd, kInertReadOnly));
  return Attach(copy.get(), target_fd);
}

}  // namespace

absl::Status HidePaths(int root_fd, const Paths& paths) {
  Mask mask(root_fd);
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::optional<Fd> target, OpenIfExists(root_fd, path), "hide ", path);
    if (target) RETURN_IF_ERROR(mask.Cover(target->get()), "hide ", path);
  }
  return absl::OkStatus();
}

absl::Status ProtectPaths(int root_fd, const Paths& paths) {
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::optional<Fd> target, OpenIfExists(root_fd, path), "protect ", path);
    if (target) RETURN_IF_ERROR(ProtectPath(target->get()), "protect ", path);
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
