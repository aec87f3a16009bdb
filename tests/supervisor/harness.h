// Real spawner, real supervisors, real sandboxes: what the supervisor's tests share.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "driver/base/event_loop.h"
#include "driver/base/mutex.h"
#include "driver/sandbox/host_rootfs.h"
#include "driver/supervisor/client.h"
#include "driver/supervisor/control.h"
#include "proto/supervisor.pb.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {

inline constexpr std::chrono::seconds kTestDeadline{60};

// Until `condition` holds; false after kTestDeadline. For facts that no event announces.
bool Eventually(const std::function<bool()>& condition);
// Neither gone nor a zombie.
bool ProcessAlive(int pid);
bool PathExists(const std::string& path);

// A connection to a supervisor, with what came over it. Blocking calls for the test's thread.
class Watcher {
 public:
  Watcher(EventLoop* loop, Fd connection);

  absl::StatusOr<pb::ControlReply> Call(pb::ControlRequest request);
  pb::TaskStatus Status();  // also starts to watch
  absl::Status Stop(int signal, std::chrono::milliseconds timeout);
  absl::Status Signal(int signal);
  absl::Status JarReady(const pb::JarInfo& jar);
  absl::Status Note(const std::string& waiting_for);
  absl::Status Verdict(const std::string& cause, uint32_t launches);
  absl::Status Aged(const std::string& cause, uint32_t launches);
  absl::Status Done(uint32_t launches);
  // A session that lives as long as this watcher; its descriptors are dropped.
  absl::Status Exec(const std::vector<std::string>& argv);

  std::optional<pb::ExitRecord> WaitExit();
  bool WaitLost();
  bool WaitEvent(const std::string& part);
  std::string EventWith(const std::string& part);  // the first one; "": it did not come
  void Close() { control_.reset(); }

 private:
  struct News {
    Mutex mutex;
    CondVar changed;
    std::vector<std::string> events ABSL_GUARDED_BY(mutex);
    std::optional<pb::ExitRecord> exit ABSL_GUARDED_BY(mutex);
    bool lost ABSL_GUARDED_BY(mutex) = false;
  };
  bool WaitFor(const std::function<bool(const News&)>& condition);

  const std::shared_ptr<News> news_ = std::make_shared<News>();
  std::unique_ptr<Control> control_;
};

class SupervisorTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Arguments that run in the sandbox as uid 20001, with /local writable.
  pb::LaunchSpec Spec(const std::vector<std::string>& argv);
  pb::LaunchSpec Shell(const std::string& script) { return Spec({"/bin/sh", "-c", script}); }
  // The same on an image of this one layer instead of the host's programs.
  pb::LaunchSpec OnImage(const std::string& layer, const std::vector<std::string>& argv);

  // As the plugin does: what tasks share goes to the spawner's template.
  absl::StatusOr<Fd> Spawn(pb::LaunchSpec spec);
  // Spawns and waits for the answer; the connection is kept in watcher().
  absl::StatusOr<pb::TaskStatus> Start(const pb::LaunchSpec& spec);
  Watcher& watcher() { return *watcher_; }
  std::unique_ptr<Watcher> Reconnect();
  Spawner& spawner() { return *spawner_; }
  void DropConnection() { watcher_.reset(); }
  // The empty cgroups of a task that lost its supervisor stay behind. They do not disturb the next
  // start, for which they are like those that Nomad made; so nobody but Nomad, here the test,
  // removes them.
  void ExpectAnUndisturbedStart(const pb::TaskStatus& lost);

  std::optional<pb::ExitRecord> RecordOnDisk();
  std::string Stdout() const { return Content("stdout"); }
  std::string Stderr() const { return Content("stderr"); }
  std::string Local(const std::string& name) const { return directory_.path() + "/local/" + name; }
  std::string LocalContent(const std::string& name) const { return Content("local/" + name); }
  std::string Content(const std::string& name) const;
  const std::string& directory() const { return directory_.path(); }
  std::string TaskDir() const { return directory_.path() + "/task"; }
  // No cgroup, no socket, no process of the task.
  void ExpectNothingLeft(const pb::TaskStatus& status);

 private:
  void EndTask();
  HostRootfs Rootfs() const;

  TempDir directory_;
  std::string cgroup_name_;
  std::unique_ptr<EventLoop> loop_;
  std::thread loop_thread_;
  std::unique_ptr<Spawner> spawner_;
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace jenkins_agent
