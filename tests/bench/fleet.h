// One plugin, started from its real file as Nomad does, and its tasks. One thread uses a fleet.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "tests/bench/process.h"
#include "tests/contract/plugin_host.h"

namespace jenkins_agent::bench {

class Fleet {
 public:
  // `dir`: an empty directory, for the state directory and the allocations.
  static absl::StatusOr<std::unique_ptr<Fleet>> Launch(const std::string& dir);
  ~Fleet();

  // What a task's first instruction costs: StartTask sent -> the probe's stamp.
  struct Sample {
    double first_instruction_ms = 0;
    double answered_ms = 0;  // StartTask's own answer
  };
  absl::StatusOr<Sample> MeasureStart();

  // Starts tasks `from` .. `to` - 1, which rest until they are stopped.
  absl::Status StartResting(int from, int to);
  // A task that runs a shell's script until it is stopped.
  absl::Status StartScript(const std::string& script);
  absl::Status DestroyAll();
  // A task that runs to its end, then is destroyed.
  absl::Status Cycle();

  // Supervisor and pid 1 of all running tasks, together.
  absl::StatusOr<ProcessMemory> HelperMemory() const;
  size_t size() const { return tasks_.size(); }

  // SIGKILL of the plugin, a new one, RecoverTask and WaitTask for each task in turn.
  struct Recovery {
    double relaunch_ms = 0;  // from the start of the new plugin to its answer to SetConfig
    double recover_ms = 0;  // first RecoverTask -> last WaitTask sent and last RecoverTask answered
  };
  absl::StatusOr<Recovery> CrashAndRecover();

  pid_t plugin() const { return host_->pid(); }
  const std::string& state_dir() const { return state_dir_; }
  const std::string& probe() const { return probe_; }
  // Part of the names of all cgroups of this fleet.
  const std::string& mark() const { return mark_; }

 private:
  struct Task {
    hashicorp::nomad::plugins::drivers::proto::TaskHandle handle;
    pid_t supervisor = 0;
    pid_t init = 0;
  };

  explicit Fleet(const std::string& dir);
  absl::Status Open();
  absl::Status LaunchPlugin();
  absl::StatusOr<Task> Start(const std::string& id, const std::vector<std::string>& args,
                             const std::string& stdout_path);
  absl::StatusOr<Task> StartCommand(const std::string& id, const std::string& command,
                                    const std::vector<std::string>& args,
                                    const std::string& stdout_path);
  absl::Status Await(const std::string& id);
  absl::Status Destroy(const std::string& id);
  absl::Status Inspect(const std::string& id, Task& task);

  const std::string dir_;
  const std::string state_dir_;
  const std::string probe_;
  const std::string mark_;
  Fd output_;  // reading end of the FIFO that stands for Nomad's
  std::unique_ptr<PluginHost> host_;
  std::map<std::string, Task> tasks_;
};

// Reads the probe's stamp from a pipe or FIFO; milliseconds of CLOCK_MONOTONIC.
absl::StatusOr<double> ReadStamp(int fd);

}  // namespace jenkins_agent::bench
