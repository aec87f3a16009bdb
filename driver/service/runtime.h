// What a plugin process holds once Nomad has configured it: the event loop and its thread, the
// spawner, the tasks. Built by main(), used by the services.
//
// Nothing is started and nothing on the host is touched before the configuration that comes with
// nomad_config (or the first task): Nomad launches a plugin three times at every agent start and
// keeps only the last (nomad-driver-protocol.md 1.8).
//
// Thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/event_loop.h"
#include "driver/base/mutex.h"
#include "driver/config/plugin_config.h"
#include "driver/metrics/metrics.h"
#include "driver/service/metrics_feed.h"
#include "driver/supervisor/client.h"
#include "driver/task/events.h"
#include "driver/task/jar_worker.h"
#include "driver/task/store.h"
#include "proto/nomad_base.pb.h"

namespace jenkins_agent {

// The programs that the plugin carries in its own file (driver/embed.S).
struct EmbeddedPrograms {
  absl::string_view supervisor;
  absl::string_view tools;
  absl::string_view exporter;
};

class Runtime {
 public:
  using NomadConfig = hashicorp::nomad::plugins::base::proto::NomadConfig;

  explicit Runtime(EmbeddedPrograms programs) : programs_(programs) {}
  ~Runtime();  // leaves the tasks alone
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // SetConfig. Without `nomad_config` only checks the configuration; with it also starts up. A
  // state directory that cannot be used now is no error of the configuration: see StateTrouble().
  absl::Status Configure(const std::string& msgpack, const std::optional<NomadConfig>& nomad_config)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Starts up when that has not happened yet. Recoverable: the state directory cannot be used.
  absl::StatusOr<TaskStore*> Store() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<EventLoop*> Loop() ABSL_LOCKS_EXCLUDED(mutex_);
  // Another thread, for work that may block for seconds.
  absl::StatusOr<EventLoop*> Worker() ABSL_LOCKS_EXCLUDED(mutex_);
  EventBus& events() { return events_; }
  Metrics& metrics() { return metrics_; }
  PluginConfig config() const ABSL_LOCKS_EXCLUDED(mutex_);

  // MHz of the whole node and its number of cores, as Nomad counts them; 0 when it did not say.
  struct Compute {
    uint64_t total_mhz = 0;
    uint64_t cores = 0;
  };
  Compute compute() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Why the state directory cannot be used, as HostFacts has it; "": nothing known against it.
  // Tries it again when it could not: whoever mends it need not restart Nomad. May block for
  // seconds.
  std::string StateTrouble() ABSL_LOCKS_EXCLUDED(mutex_);

  // Starts the tools program once; the error names what it misses ("libcurl.so.4: ...").
  absl::Status CheckTools() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status StartUp() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OpenStore() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status StartLoop(std::unique_ptr<EventLoop>& loop) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ServeMetrics() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LoadTools() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const EmbeddedPrograms programs_;
  EventBus events_;
  Metrics metrics_;

  mutable Mutex mutex_;
  PluginConfig config_ ABSL_GUARDED_BY(mutex_);
  Compute compute_ ABSL_GUARDED_BY(mutex_);
  // Never changes once store_ is there: the tasks read it without the lock.
  JarWorkerProgram tools_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<EventLoop> loop_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<EventLoop> cleaner_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> loop_threads_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Spawner> spawner_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<TaskStore> store_ ABSL_GUARDED_BY(mutex_);
  std::string state_trouble_ ABSL_GUARDED_BY(mutex_);  // of the last try to open the store
  std::unique_ptr<MetricsFeed> metrics_feed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace jenkins_agent
