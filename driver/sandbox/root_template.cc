#include "driver/sandbox/root_template.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/root.h"

namespace jenkins_agent {
namespace {

constexpr char kMountInfo[] = "/proc/self/mountinfo";
constexpr size_t kMaxMountInfo = 16 << 20;  // ~100 bytes a mount, a few mounts a task
constexpr char kMountNamespace[] = "/proc/self/ns/mnt";
constexpr size_t kMountPoint = 4;  // field of a line, proc(5)

std::vector<std::string> SourcePaths(const pb::TemplateSpec& spec) {
  std::vector<std::string> paths;
  for (const pb::MountSpec& mount : spec.mounts()) {
    if (mount.kind() == pb::MountSpec::BIND) paths.push_back(mount.source());
  }
  return paths;
}

// A process that cannot go back would spawn tasks without the host's directories.
absl::StatusOr<Fd> BuildInNamespace(const pb::TemplateSpec& spec,
                                    const std::vector<std::string>& cgroup_names) {
  ASSIGN_OR_RETURN(std::vector<Fd> sources, CloneSources(spec.mounts()));
  ASSIGN_OR_RETURN(const Fd home, OpenFile(kMountNamespace, O_RDONLY));
  if (::unshare(CLONE_NEWNS) != 0) return ErrnoStatus("unshare");
  const absl::Cleanup go_back = [&home] {
    if (::setns(home.get(), CLONE_NEWNS) != 0) ::_exit(1);
  };
  ASSIGN_OR_RETURN(Fd mount_namespace, OpenFile(kMountNamespace, O_RDONLY));
  RETURN_IF_ERROR(BuildTemplate(spec, std::move(sources), cgroup_names));
  return mount_namespace;
}

}  // namespace

RootTemplate::Source RootTemplate::Look(const std::string& path) {
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0) return {.path = path};
  return {.path = path, .exists = true, .device = found.st_dev, .inode = found.st_ino};
}

// What is looked at before it is bound may be older than what is bound, never newer: the next look
// notices.
absl::StatusOr<RootTemplate> RootTemplate::Build(const std::string& packed,
                                                 const std::vector<std::string>& cgroup_names) {
  pb::TemplateSpec spec;
  if (!spec.ParseFromString(packed)) return absl::InvalidArgumentError("template is garbled");
  RootTemplate made;
  made.packed_ = packed;
  made.single_use_ = spec.single_use();
  const std::vector<std::string> paths = SourcePaths(spec);
  ASSIGN_OR_RETURN(const std::string mountinfo, ReadFile(kMountInfo, kMaxMountInfo));
  made.mounts_ = MountsBelow(mountinfo, paths);
  for (const std::string& path : paths) made.sources_.push_back(Look(path));
  ASSIGN_OR_RETURN(made.namespace_, BuildInNamespace(spec, cgroup_names));
  return made;
}

bool RootTemplate::SourcesAreTheSame() const {
  return std::all_of(sources_.begin(), sources_.end(),
                     [](const Source& source) { return Look(source.path) == source; });
}

bool RootTemplate::MountsAreTheSame(absl::string_view mountinfo) const {
  std::vector<std::string> paths;
  for (const Source& source : sources_) paths.push_back(source.path);
  return MountsBelow(mountinfo, paths) == mounts_;
}

// Blanks in mount points are escaped there and not in paths: mounts below a path with a blank are
// not noticed, which costs no more than the next change of the path itself.
std::string MountsBelow(absl::string_view mountinfo, const std::vector<std::string>& paths) {
  std::string lines;
  for (absl::string_view line : absl::StrSplit(mountinfo, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::MaxSplits(' ', kMountPoint + 1));
    if (fields.size() <= kMountPoint) continue;
    const absl::string_view point = fields[kMountPoint];
    const bool below = std::any_of(paths.begin(), paths.end(), [&point](const std::string& path) {
      return absl::StartsWith(point, path) &&
             (point.size() == path.size() || point[path.size()] == '/');
    });
    if (below) absl::StrAppend(&lines, line, "\n");
  }
  return lines;
}

RootTemplates::RootTemplates(std::vector<std::string> cgroup_names)
    : cgroup_names_(std::move(cgroup_names)) {
  if (absl::StatusOr<Fd> mounts = OpenFile(kMountInfo, O_RDONLY); mounts.ok()) {
    mounts_ = *std::move(mounts);
  }
}

absl::StatusOr<Fd> RootTemplates::Get(const std::string& packed) {
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&packed](const RootTemplate& kept) {
    return kept.packed() == packed;
  });
  if (found != kept_.end() && found->SourcesAreTheSame()) {
    kept_.splice(kept_.begin(), kept_, found);
    return Duplicate(kept_.front().mount_namespace());
  }
  if (found != kept_.end()) kept_.erase(found);
  ASSIGN_OR_RETURN(RootTemplate made, RootTemplate::Build(packed, cgroup_names_));
  ASSIGN_OR_RETURN(Fd mount_namespace, Duplicate(made.mount_namespace()));
  if (made.single_use()) return mount_namespace;
  kept_.push_front(std::move(made));
  if (kept_.size() > kMaxKept) kept_.pop_back();
  return mount_namespace;
}

// When the host's mounts cannot be read, nothing is known to be as it was.
void RootTemplates::OnMountsChanged() {
  if (kept_.empty()) return;
  const absl::StatusOr<std::string> mountinfo = ReadFile(kMountInfo, kMaxMountInfo);
  kept_.remove_if([&mountinfo](const RootTemplate& kept) {
    return !mountinfo.ok() || !kept.MountsAreTheSame(*mountinfo);
  });
}

void RootTemplates::Clear() {
  kept_.clear();
  mounts_.Reset();
}

}  // namespace jenkins_agent
