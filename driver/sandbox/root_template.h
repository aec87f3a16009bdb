// Root file systems that tasks of this host share: built once, copied for every task.
//
// A template is a mount namespace with nothing in it but the skeleton, the host's programs and the
// kernel's trees, all read-only. The host does not see it; it ends with the last descriptor of it.
// A task joins it and makes a copy (unshare(2)) of some forty mounts instead of mounting them one
// by one. Whatever else takes /dev and /sys from a copy finds them there with their masks.
//
// Used by the spawner: root, single-threaded.
#pragma once

#include <sys/stat.h>

#include <list>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

class RootTemplate {
 public:
  // `packed`: a TemplateSpec. `cgroup_names`: of the CgroupViews that tasks will have. Returns with
  // the calling process where it was. Errors name the step, as BuildRoot's do.
  static absl::StatusOr<RootTemplate> Build(const std::string& packed,
                                            const std::vector<std::string>& cgroup_names);

  const std::string& packed() const { return packed_; }
  int mount_namespace() const { return namespace_.get(); }
  // Not to be kept for other tasks.
  bool single_use() const { return single_use_; }

  // Every source is still the file or directory that the template shows: an upgrade of the host
  // puts new ones in their place.
  bool SourcesAreTheSame() const;
  // The host still has the same mounts at and below the sources. `mountinfo`: its text of now.
  bool MountsAreTheSame(absl::string_view mountinfo) const;

 private:
  struct Source {
    std::string path;
    bool exists = false;
    dev_t device = 0;
    ino_t inode = 0;

    bool operator==(const Source&) const = default;
  };
  static Source Look(const std::string& path);

  std::string packed_;
  bool single_use_ = false;
  Fd namespace_;
  std::vector<Source> sources_;
  std::string mounts_;  // lines of mountinfo
};

// The lines of a mountinfo file (proc(5)) whose mount point is at or below one of `paths`.
std::string MountsBelow(absl::string_view mountinfo, const std::vector<std::string>& paths);

// The templates in use, newest first; few, because few kinds of jobs differ in their mount points.
class RootTemplates {
 public:
  static constexpr size_t kMaxKept = 4;

  // Watches the mounts of the namespace it is made in.
  explicit RootTemplates(std::vector<std::string> cgroup_names);

  // The template's mount namespace, built when there is none, the host has changed since, or the
  // template is of single use.
  absl::StatusOr<Fd> Get(const std::string& packed);

  // To be polled for POLLPRI: the host mounted or unmounted something. -1: nothing to watch.
  int mounts_fd() const { return mounts_.get(); }
  void OnMountsChanged();

  // A forked child needs at most the one that it was given.
  void Clear();

 private:
  const std::vector<std::string> cgroup_names_;
  Fd mounts_;  // /proc/self/mountinfo
  std::list<RootTemplate> kept_;
};

}  // namespace jenkins_agent
