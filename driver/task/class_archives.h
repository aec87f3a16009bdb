// The node's class-data archives: one for each JDK build and agent.jar, so that the next agent's
// JVM maps its classes instead of loading them (driver/jvm/class_data.h).
//
// An archive is made in the background, after an agent has connected without one: in a sandbox as a
// task's, without network, from the cached jar, never from files that a task could write. HotSpot
// does not check what it maps, and a damaged archive ends the JVM: so an archive is only used in
// the boot that made it, and after its digest, which its name holds, was checked by this plugin.
//
// Thread-safe. Owned by TaskStore through a shared_ptr, for callbacks of the loops.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/event_loop.h"
#include "driver/base/mutex.h"
#include "driver/base/paths.h"
#include "driver/supervisor/client.h"
#include "driver/supervisor/control.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

inline constexpr size_t kMaxClassArchives = 8;  // the longest unused go; each has about 10 MB
inline constexpr size_t kMaxClassArchiveBytes = 64 << 20;

// jar/vm.options of a task: what its JVM shall read (ClassDataOption()).
absl::Status WriteVmOptions(const std::string& task_dir, absl::string_view content);

class ClassArchives : public std::enable_shared_from_this<ClassArchives> {
 public:
  struct Options {
    EventLoop* loop = nullptr;
    EventLoop* cleaner = nullptr;  // where what may block for seconds is done
    Spawner* spawner = nullptr;
    StatePaths paths{""};
    std::string boot_id;
    std::string payload_filter;  // seccomp programs of tasks without capabilities
    std::string init_filter;
  };

  // Looks at what is kept, on the cleaner's thread.
  static std::shared_ptr<ClassArchives> Open(Options options);
  ClassArchives(const ClassArchives&) = delete;
  ClassArchives& operator=(const ClassArchives&) = delete;

  // Path of the archive of this JDK, as it is now, and jar; "" when there is none.
  std::string Find(const std::string& java_home, const std::string& jar_sha256)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Returns at once. One is made at a time; what could not be made is not tried again.
  void Make(const pb::JavaHome& java, const pb::JarInfo& jar, const std::string& jar_file);

 private:
  struct Making {
    std::string key;
    std::unique_ptr<Control> control;
    EventLoop::TimerId deadline = 0;
  };

  explicit ClassArchives(Options options) : options_(std::move(options)) {}
  absl::StatusOr<std::string> KeyOf(const std::string& java_home,
                                    const std::string& jar_sha256) const;

  // On the cleaner's thread.
  void LoadKept();
  void Begin(const pb::JavaHome& java, const pb::JarInfo& jar, const std::string& jar_file);
  absl::Status Start(const pb::JavaHome& java, const pb::JarInfo& jar, const std::string& jar_file);
  void Finish();
  absl::Status Keep(const std::string& key);
  void Prune();
  absl::StatusOr<pb::LaunchSpec> Plan(const pb::JavaHome& java, const pb::JarInfo& jar) const;

  const Options options_;
  // The cleaner's thread only.
  Making making_;  // key "": nothing is being made
  std::set<std::string> failed_;

  Mutex mutex_;
  std::map<std::string, std::string> kept_ ABSL_GUARDED_BY(mutex_);  // key -> path
};

}  // namespace jenkins_agent
