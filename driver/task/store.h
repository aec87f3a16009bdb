// All tasks of this plugin: started once, found again after a restart, cleaned up for good.
//
// Thread-safe. Calls of the Driver service come in on gRPC's threads, concurrently, also for the
// same task. The store's lock is held for lookups only, never across a call to a supervisor.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/mutex.h"
#include "driver/base/paths.h"
#include "driver/config/plugin_config.h"
#include "driver/config/task_config.h"
#include "driver/sandbox/host_entries.h"
#include "driver/supervisor/client.h"
#include "driver/task/events.h"
#include "driver/task/filters.h"
#include "driver/task/jar_worker.h"
#include "driver/task/task.h"
#include "driver/task/task_image.h"
#include "driver/task/task_images.h"
#include "proto/nomad_driver.pb.h"

namespace jenkins_agent {

class TaskStore {
 public:
  struct Options {
    PluginConfig config;
    Task::Shared shared;
    Spawner* spawner = nullptr;
    std::string proc_root = "/proc";  // where a start looks how loaded this host is
    std::string sys_root = "/sys";
  };

  // Makes the state directory and becomes its owner. AlreadyExists: another plugin owns it.
  static absl::StatusOr<std::unique_ptr<TaskStore>> Open(Options options);

  // Returns the driver_state for Nomad's handle once the sandbox stands and the program can be
  // executed. After an error nothing is left of the task. `received_ns`: CLOCK_MONOTONIC.
  absl::StatusOr<std::string> Start(
      const hashicorp::nomad::plugins::drivers::proto::TaskConfig& config, int64_t received_ns);
  // Takes up a task that an earlier plugin (or this one) started.
  absl::Status Recover(const std::string& task_id, absl::string_view driver_state);
  // Ends the task if `force`, and forgets it with everything on the host. Unknown ids are fine;
  // what the disk knows of them is cleaned up.
  absl::Status Destroy(const std::string& task_id, bool force);

  // A start of this task that still waits for its image fails; other tasks are left alone.
  void GiveUpImage(const std::string& task_id);
  const TaskImages& images() const { return *images_; }

  // NotFound for an id that was neither started nor recovered, or is destroyed.
  absl::StatusOr<std::shared_ptr<Task>> Find(const std::string& task_id) const;
  std::vector<std::shared_ptr<Task>> Tasks() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  TaskStore(Options options, Fd lock, std::unique_ptr<TaskFilters> filters);

  absl::StatusOr<std::string> TryToStart(
      const hashicorp::nomad::plugins::drivers::proto::TaskConfig& config, int64_t received_ns);
  absl::Status TryToRecover(const std::string& task_id, absl::string_view driver_state);
  absl::Status Remove(const std::string& task_id, bool force);
  absl::Status Reserve(const std::string& task_id) ABSL_LOCKS_EXCLUDED(mutex_);
  void Release(const std::string& task_id) ABSL_LOCKS_EXCLUDED(mutex_);
  // True: this caller recovers the task, and releases it. False: it is known by now.
  absl::StatusOr<bool> ReserveForRecovery(const std::string& task_id) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<Task>> Launch(
      const hashicorp::nomad::plugins::drivers::proto::TaskConfig& config, int64_t received_ns);
  struct ImageOfTask {
    TaskImage image;
    std::string story;  // how the start came by it
  };
  // Leased to the task; nothing for a task on the host's programs. Blocks while it is pulled.
  absl::StatusOr<std::optional<ImageOfTask>> TakeImage(
      const hashicorp::nomad::plugins::drivers::proto::TaskConfig& config,
      const TaskConfig& task_config);
  absl::StatusOr<std::shared_ptr<Task>> Reconnect(const pb::TaskRecord& record);

  const Options options_;
  const StatePaths paths_;
  const Fd owner_lock_;
  HostEntryCache host_entries_;
  std::string boot_id_;
  const std::unique_ptr<TaskFilters> filters_;
  std::shared_ptr<TaskImages> images_;

  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<Task>> tasks_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> reserved_ ABSL_GUARDED_BY(mutex_);  // being started or recovered
  CondVar released_;
};

}  // namespace jenkins_agent
