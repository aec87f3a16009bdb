// One plugin, started from its real file as Nomad does, and its tasks. One thread uses a fleet.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"
#include "tests/bench/process.h"
#include "tests/contract/plugin_host.h"

namespace jenkins_agent::bench {

// What a program's first instruction costs: its start asked for -> the probe's stamp.
struct Sample {
  double first_instruction_ms = 0;
  double answered_ms = 0;  // StartTask's own answer
  double reaped_ms = 0;    // -> its end is told
};

// A static program of the bench, and what it may take.
struct Program {
  std::string file;  // on the host; the sandbox sees it in /local
  std::vector<std::string> args = {};
  int64_t memory_mb = 64;
  int pids = 2048;
};

// Where a program's doings can be seen.
struct Running {
  std::string local_dir;  // its /local, on the host
  std::vector<std::string> cgroup_dirs;
};

class Fleet {
 public:
  struct Options {
    std::string driver = DRIVER_FILE;
    // Its tasks see the host's own directories, as with a driver that has no sandbox.
    bool host_paths = false;
    bool own_logs = false;  // log_collection = "driver"
  };

  // `dir`: an empty directory, for the state directory and the allocations.
  static absl::StatusOr<std::unique_ptr<Fleet>> Launch(const std::string& dir, Options options);
  ~Fleet();

  // From StartTask sent on. `own_network`: from the making of a network namespace on, which Nomad
  // does for the driver.
  // On the kept image of that name; empty: on the host's programs.
  absl::StatusOr<Sample> MeasureStart(bool own_network, const std::string& image = "");
  // What its supervisor says of the start of a task that rests.
  absl::StatusOr<pb::Timings> MeasurePhases();

  // Starts `count` more tasks, one after another, which rest until they are stopped.
  absl::Status StartResting(int count);
  // The same with all StartTasks under way at once. Milliseconds from the first call sent to each
  // answer, in the order of the answers.
  absl::StatusOr<std::vector<double>> StartTogether(int count);
  // StopTask for all of them at once, whose payload ends only when it is killed; milliseconds until
  // the last answer. They stay to be destroyed.
  absl::StatusOr<double> StopTogether();
  // A task that runs the program until it is stopped.
  absl::StatusOr<Running> StartProgram(const Program& program);
  // One that ends by itself; the `size` bytes that it wrote.
  absl::StatusOr<std::string> RunProgram(const Program& program, size_t size);
  // Agents that run `jar` with <java_home>/bin/java; `watched`: with health.enabled.
  absl::Status StartAgents(int count, const std::string& java_home, const std::string& jar,
                           bool watched);
  struct Agents {
    size_t connected = 0;  // by their own words
    int restarts = 0;      // in place
    std::vector<pid_t> payloads;
  };
  absl::StatusOr<Agents> LookAtAgents();
  absl::Status DestroyAll();

  // Follows the statistics of all tasks for `duration`, as Nomad's client does; returns how many
  // came.
  absl::StatusOr<int> FollowStats(std::chrono::seconds interval, std::chrono::seconds duration);

  // Supervisor and pid 1 of all running tasks, together.
  absl::StatusOr<ProcessMemory> HelperMemory() const;
  size_t size() const { return tasks_.size(); }

  // SIGKILL of the plugin, a new one, RecoverTask and then WaitTask for each task, of which
  // `at_once` RecoverTasks are under way at a time. Ends with DestroyAll.
  struct Recovery {
    double relaunch_ms = 0;  // from the start of the new plugin to its answer to SetConfig
    double recover_ms = 0;  // first RecoverTask -> last RecoverTask answered and last WaitTask sent
  };
  absl::StatusOr<Recovery> CrashAndRecover(int at_once);

  pid_t plugin() const { return host_->pid(); }
  const std::string& state_dir() const { return state_dir_; }
  // The payload that is measured, alone in its directory.
  std::string probe() const;
  // Part of the names of all cgroups of this fleet.
  const std::string& mark() const { return mark_; }

 private:
  using StartTaskRequest = hashicorp::nomad::plugins::drivers::proto::StartTaskRequest;
  using TaskHandle = hashicorp::nomad::plugins::drivers::proto::TaskHandle;

  struct Task {
    TaskHandle handle;
    pid_t payload = 0;
    pid_t supervisor = 0;  // 0: this driver has none
    pid_t init = 0;
    int restarts = 0;
    bool connected = false;
  };
  struct Waits;

  Fleet(const std::string& dir, Options options);
  absl::Status Open();
  absl::Status LaunchPlugin();
  // The directories that Nomad makes for a task, with the probe in local/.
  absl::Status MakeAllocation(const std::string& name) const;
  StartTaskRequest StartRequest(const std::string& name, const std::vector<std::string>& args,
                                const std::string& stdout_path) const;
  absl::StatusOr<StartTaskRequest> ProgramRequest(const Program& program,
                                                  const std::string& stdout_path) const;
  absl::StatusOr<StartTaskRequest> NextResting();
  absl::StatusOr<TaskHandle> Start(const StartTaskRequest& request);
  absl::Status Keep(const TaskHandle& handle);
  absl::StatusOr<Task> Inspect(const TaskHandle& handle);
  absl::Status Await(const std::string& id);
  absl::Status Destroy(const std::string& id);
  absl::Status RecoverAll(int at_once, Waits& waits);

  const std::string dir_;
  const Options options_;
  const std::string state_dir_;
  const std::string mark_;
  Fd output_;  // reading end of the FIFO that stands for Nomad's
  std::unique_ptr<PluginHost> host_;
  std::map<std::string, Task> tasks_;
  int next_id_ = 0;
};

// The file name of a program.
std::string BaseNameOf(const Program& program);

// Reads the probe's stamp from a pipe or FIFO; milliseconds of CLOCK_MONOTONIC.
absl::StatusOr<double> ReadStamp(int fd);

}  // namespace jenkins_agent::bench
