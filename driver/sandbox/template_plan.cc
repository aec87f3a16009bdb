#include "driver/sandbox/template_plan.h"

#include <linux/capability.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;

using Mounts = google::protobuf::RepeatedPtrField<pb::MountSpec>;
using Paths = google::protobuf::RepeatedPtrField<std::string>;

bool IsMount(const pb::MountSpec& entry) {
  switch (entry.kind()) {
    case pb::MountSpec::SYMLINK:
    case pb::MountSpec::FILE:
    case pb::MountSpec::DIRECTORY:
    case pb::MountSpec::DIRECTORY_POINT:
    case pb::MountSpec::FILE_POINT:
      return false;
    default:
      return true;
  }
}

bool IsAtOrBelow(const std::string& path, const std::string& directory) {
  return absl::StartsWith(path, directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

bool IsInside(const std::string& path, const Mounts& mounts) {
  return std::any_of(mounts.begin(), mounts.end(), [&path](const pb::MountSpec& entry) {
    return IsMount(entry) && IsAtOrBelow(path, entry.target());
  });
}

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// What a bind is made onto. A source that is missing is for the task's own start to complain of.
pb::MountSpec::Kind MountPointOf(const pb::MountSpec& entry) {
  if (entry.kind() != pb::MountSpec::BIND) return pb::MountSpec::DIRECTORY_POINT;
  std::error_code error;
  const fs::file_status source = fs::status(entry.source(), error);
  return !fs::exists(source) || fs::is_directory(source) ? pb::MountSpec::DIRECTORY_POINT
                                                         : pb::MountSpec::FILE_POINT;
}

bool IsSkipped(const pb::MountSpec& entry) {
  std::error_code error;
  return entry.optional() && !fs::exists(entry.source(), error);
}

// A mount over a file of the plan: nobody would see that file.
bool IsReplaced(const pb::MountSpec& entry, const Mounts& entries) {
  if (entry.kind() != pb::MountSpec::FILE) return false;
  return std::any_of(entries.begin(), entries.end(), [&entry](const pb::MountSpec& other) {
    return IsMount(other) && other.target() == entry.target() && !IsSkipped(other);
  });
}

bool IsSameForAll(const pb::MountSpec& entry, const pb::SandboxSpec& sandbox,
                  const pb::UserSpec& user) {
  if (!entry.shared()) return false;
  switch (entry.kind()) {
    case pb::MountSpec::SYSFS:
      return sandbox.network_namespace().empty() && !sandbox.own_network();
    case pb::MountSpec::DEV:
      return entry.read_only() && entry.devices().empty();
    case pb::MountSpec::BIND:
      return user.id_map().empty();
    default:
      return true;
  }
}

// Whoever may mount on the host can make a file system writable again, for all who share it
// (mount(2), MS_REMOUNT without MS_BIND).
bool MayRemount(const pb::SandboxSpec& sandbox, const pb::UserSpec& user) {
  const auto& capabilities = sandbox.capabilities();
  return user.id_map().empty() && std::find(capabilities.begin(), capabilities.end(),
                                            uint32_t{CAP_SYS_ADMIN}) != capabilities.end();
}

// Goes through the plan in its order and divides it.
class Division {
 public:
  void Add(pb::MountSpec entry) {
    const bool inside_own = IsInside(entry.target(), own_);
    if (entry.shared() && !inside_own) {
      *template_.add_mounts() = std::move(entry);
    } else if (inside_own) {
      *own_.Add() = std::move(entry);
    } else if (entry.kind() == pb::MountSpec::FILE) {
      AddFile(std::move(entry));
    } else if (!IsMount(entry)) {
      *template_.add_mounts() = std::move(entry);
    } else {
      AddMountPoint(entry);
      *own_.Add() = std::move(entry);
    }
  }

  void AddHidden(const std::string& path, Paths* own) {
    const bool shared = IsInside(path, template_.mounts()) && !IsInside(path, own_);
    *(shared ? template_.add_masked_paths() : own->Add()) = path;
  }
  void AddProtected(const std::string& path, Paths* own) {
    const bool shared = IsInside(path, template_.mounts()) && !IsInside(path, own_);
    *(shared ? template_.add_read_only_paths() : own->Add()) = path;
  }

  // The files come first: a mount of the job may be meant for one of them.
  pb::TemplateSpec Finish(Mounts* own) {
    if (!files_.files().empty()) {
      files_.set_kind(pb::MountSpec::FILES);
      files_.set_target(kFilesDir);
      AddMountPoint(files_);
      *own->Add() = std::move(files_);
    }
    for (pb::MountSpec& entry : own_) *own->Add() = std::move(entry);
    return std::move(template_);
  }

 private:
  // Inside a shared mount nothing can be made: the target is there already, or the start fails.
  // CGROUP: a place for directories that the task's own are mounted on.
  void AddMountPoint(const pb::MountSpec& entry) {
    if (IsInside(entry.target(), template_.mounts())) {
      if (entry.kind() == pb::MountSpec::CGROUP) *template_.add_mounts() = entry;
      return;
    }
    pb::MountSpec& point = *template_.add_mounts();
    point.set_kind(MountPointOf(entry));
    point.set_no_links(entry.no_links());
    point.set_target(entry.target());
  }

  void AddFile(pb::MountSpec entry) {
    pb::FileSpec& file = *files_.add_files();
    file.set_name(FreeName(BaseName(entry.target())));
    file.set_content(std::move(*entry.mutable_content()));
    file.set_mode(entry.mode());
    file.set_uid(entry.uid());
    file.set_gid(entry.gid());
    pb::MountSpec& link = *template_.add_mounts();
    link.set_kind(pb::MountSpec::SYMLINK);
    link.set_target(entry.target());
    link.set_source(absl::StrCat(kFilesDir, "/", file.name()));
  }

  std::string FreeName(const std::string& name) const {
    const auto taken = [this](const std::string& wanted) {
      return std::any_of(files_.files().begin(), files_.files().end(),
                         [&wanted](const pb::FileSpec& file) { return file.name() == wanted; });
    };
    std::string free = name;
    for (int i = 2; taken(free); ++i) free = absl::StrCat(name, ".", i);
    return free;
  }

  pb::TemplateSpec template_;
  Mounts own_;
  pb::MountSpec files_;
};

}  // namespace

pb::TemplateSpec TemplateForImages() {
  pb::TemplateSpec made;
  pb::MountSpec& point = *made.add_mounts();
  point.set_kind(pb::MountSpec::DIRECTORY_POINT);
  point.set_target(kImagePoint);
  return made;
}

pb::TemplateSpec TakeTemplate(pb::SandboxSpec& sandbox, const pb::UserSpec& user) {
  Division division;
  Mounts entries;
  entries.Swap(sandbox.mutable_mounts());
  for (const pb::MountSpec& entry : entries) {
    if (IsSkipped(entry) || IsReplaced(entry, entries)) continue;
    pb::MountSpec divided = entry;
    divided.set_shared(IsSameForAll(entry, sandbox, user));
    division.Add(std::move(divided));
  }
  Paths masked, read_only;
  for (const std::string& path : sandbox.masked_paths()) division.AddHidden(path, &masked);
  for (const std::string& path : sandbox.read_only_paths()) division.AddProtected(path, &read_only);
  sandbox.mutable_masked_paths()->Swap(&masked);
  sandbox.mutable_read_only_paths()->Swap(&read_only);
  pb::TemplateSpec made = division.Finish(sandbox.mutable_mounts());
  made.set_single_use(MayRemount(sandbox, user));
  return made;
}

}  // namespace jenkins_agent
