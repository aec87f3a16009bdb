// What lies on the host at the paths that sandboxes show. It hardly ever changes, and looking at
// fifty paths is a third of a start's plan.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "driver/base/mutex.h"

namespace jenkins_agent {

struct HostEntry {
  enum class Kind { kMissing, kLink, kOther };
  Kind kind = Kind::kMissing;
  std::string text;  // of a link
};

struct HostEntries {
  std::map<std::string, HostEntry> by_path;  // of the paths that were asked for
  std::vector<std::string> etc;              // names in /etc that begin with the prefix, sorted
};

struct HostPlaces {
  std::string root;  // "" = the host's
  std::vector<std::string> paths;
  std::string etc_prefix;
};

HostEntries LookAtHost(const HostPlaces& places);

// Looks again only when a directory above one of the paths has changed: no entry appears, goes, or
// becomes another without that (inode(7), ctime). What is mounted on an entry shows when it is
// bound, not here. Thread-safe.
class HostEntryCache {
 public:
  explicit HostEntryCache(HostPlaces places);
  // Never null. `now_ns`: CLOCK_REALTIME.
  std::shared_ptr<const HostEntries> Get(int64_t now_ns) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Directory {
    bool exists = false;
    dev_t device = 0;
    ino_t inode = 0;
    int64_t changed_ns = 0;  // CLOCK_REALTIME

    bool operator==(const Directory&) const = default;
  };
  static Directory LookAt(const std::string& path);
  std::vector<Directory> LookAtDirectories() const;

  const HostPlaces places_;
  const std::vector<std::string> directories_;
  Mutex mutex_;
  std::vector<Directory> seen_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const HostEntries> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace jenkins_agent
