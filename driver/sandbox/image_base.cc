#include "driver/sandbox/image_base.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/mount_fd.h"

namespace jenkins_agent {
namespace {

using Mounts = google::protobuf::RepeatedPtrField<pb::MountSpec>;

bool IsAtOrBelow(const std::string& path, const std::string& directory) {
  return path == directory || absl::StartsWith(path, directory + "/");
}

absl::Status WriteFileInBase(int base_fd, const pb::MountSpec& file) {
  ASSIGN_OR_RETURN(const auto parts, SplitTarget(file.target()));
  ASSIGN_OR_RETURN(const Fd parent, MakeDirectoryInRoot(base_fd, parts.first, Links::kRefuse));
  ASSIGN_OR_RETURN(const Fd fd, OpenAt(parent.get(), parts.second,
                                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644));
  return WriteAll(fd.get(), file.content());
}

absl::Status MakeLinkInBase(int base_fd, const pb::MountSpec& link) {
  ASSIGN_OR_RETURN(const auto parts, SplitTarget(link.target()));
  ASSIGN_OR_RETURN(const Fd parent, MakeDirectoryInRoot(base_fd, parts.first, Links::kRefuse));
  if (::symlinkat(link.source().c_str(), parent.get(), parts.second.c_str()) != 0) {
    return ErrnoStatus("make link");
  }
  return absl::OkStatus();
}

// A source that is missing is for the task's own start to complain of.
absl::Status MakePlace(int base_fd, const pb::MountSpec& mount) {
  RETURN_IF_ERROR(SplitTarget(mount.target()).status());
  struct stat found = {};
  const bool bind = mount.kind() == pb::MountSpec::BIND;
  const bool there = bind && ::stat(mount.source().c_str(), &found) == 0;
  if (bind && !there && mount.optional()) return absl::OkStatus();
  return there && !S_ISDIR(found.st_mode)
             ? MakeFileInRoot(base_fd, mount.target(), Links::kRefuse).status()
             : MakeDirectoryInRoot(base_fd, mount.target(), Links::kRefuse).status();
}

}  // namespace

absl::Status MakeImageBase(pb::SandboxSpec& spec) {
  const pb::ImageRoot& image = spec.image();
  RETURN_IF_ERROR(MakeDirs(image.layers(0), 0755));
  ASSIGN_OR_RETURN(const Fd base, OpenFile(image.layers(0), O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  Mounts mounts;
  for (pb::MountSpec& mount : *spec.mutable_mounts()) {
    const bool inside = std::any_of(mounts.begin(), mounts.end(), [&](const pb::MountSpec& made) {
      return IsAtOrBelow(mount.target(), made.target());
    });
    if (mount.kind() == pb::MountSpec::FILE && !inside) {
      RETURN_IF_ERROR(WriteFileInBase(base.get(), mount), mount.target());
      continue;
    }
    if (mount.kind() == pb::MountSpec::SYMLINK && !inside) {
      RETURN_IF_ERROR(MakeLinkInBase(base.get(), mount), mount.target());
      continue;
    }
    const bool wanted = !mount.no_links() || image.writable_dir().empty();
    if (wanted && !inside) RETURN_IF_ERROR(MakePlace(base.get(), mount), mount.target());
    *mounts.Add() = std::move(mount);
  }
  spec.mutable_mounts()->Swap(&mounts);
  return absl::OkStatus();
}

}  // namespace jenkins_agent
