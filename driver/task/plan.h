// From a job's configuration to the description that a supervisor carries out. Nothing is started
// here; the same input gives the same plan (golden tests).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/config/plugin_config.h"
#include "driver/config/task_config.h"
#include "driver/jvm/java.h"
#include "driver/sandbox/host_entries.h"
#include "driver/task/filters.h"
#include "driver/task/host_limits.h"
#include "driver/task/task_image.h"
#include "proto/nomad_driver.pb.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

struct PlanInput {
  const TaskConfig& options;  // the job's `config` block
  const hashicorp::nomad::plugins::drivers::proto::TaskConfig& task;
  TaskFilters& filters;
  pb::UserSpec user = {};
  std::string task_dir = "";
  std::vector<JavaInstall> javas = {};  // of the node, newest first
  const TaskImage* image = nullptr;     // null: the host's programs
  bool own_log_files = false;           // else Nomad's helper writes them
  LogLimits logs = {};                  // of own log files
  IsolationPolicy policy = {};
  HostLimits host = {};
  uint64_t stack_limit = uint64_t{8} << 20;  // RLIMIT_STACK that the program inherits
  int64_t host_cores = 1;                    // that the plugin may use
  // Content of a file that the job names by its path inside the sandbox.
  std::function<absl::StatusOr<std::string>(const std::string& path)> read_secret_file = {};
  std::string host_root = "/";                           // tests: a made-up host
  std::shared_ptr<const HostEntries> host_entries = {};  // of HostRootfs
};

// InvalidArgument names the option that is wrong; FailedPrecondition what the node lacks.
absl::StatusOr<pb::LaunchSpec> PlanTask(const PlanInput& input);

// Content of /etc/resolv.conf for the task; empty when Nomad gave no DNS settings. What they leave
// out comes from the host's.
std::string ResolvConf(const hashicorp::nomad::plugins::drivers::proto::TaskConfig& task,
                       absl::string_view host_resolv_conf);

// A file system in memory cannot be larger than that.
absl::Status CheckAgainstMemory(const HostLimits& host, uint64_t bytes);

}  // namespace jenkins_agent
