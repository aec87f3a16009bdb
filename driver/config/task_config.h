// A job's `config { }`. A value, with its option table, decoder and checks. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/config/agent_block.h"
#include "driver/config/health_block.h"
#include "driver/config/image_block.h"
#include "driver/config/isolation.h"
#include "driver/config/options.h"

namespace jenkins_agent {

// An agent's JVM alone has about 30 threads (jenkins-agent.md 3); Linux has at most 2^22 process
// ids (PID_MAX_LIMIT of a 64-bit kernel).
inline constexpr int64_t kMinPidsLimit = 40;
inline constexpr int64_t kMaxPidsLimit = 4194304;

// Strings are empty when left out.
struct TaskConfig {
  bool has_agent = false;  // `agent { }` was written; `agent` holds the defaults otherwise
  AgentBlock agent = {};
  bool has_health = false;
  HealthBlock health = {};

  std::string java_home = "";
  std::string java_version = "";  // "8" to "99"
  std::vector<std::string> jvm_options = {};
  bool class_data_sharing = true;

  std::string jar_path = "";  // relative to the task's directory, or absolute
  std::string class_name = "";
  std::string class_path = "";

  std::string command = "";
  std::vector<std::string> args = {};  // of the jar, class or command

  ImageBlock image = {};

  std::string work_dir = "";
  int64_t pids_limit = 2048;  // processes and threads
  bool cpu_hard_limit = false;
  int64_t io_weight = 0;  // 0: left out

  Isolation isolation = {};
};

// The rows point into `config`.
std::vector<Option> OptionsFor(TaskConfig& config);

// Decodes and validates. Empty bytes are all defaults. Errors are InvalidArgument, for the
// operator, and start with "config: ".
absl::StatusOr<TaskConfig> DecodeTaskConfig(const std::string& msgpack);

// Values and combinations as far as they can be judged without the task's environment.
absl::Status ValidateTaskConfig(const TaskConfig& config);

// That a program is named at all; JENKINS_URL in the environment alone means an agent.
absl::Status ValidateProgramChoice(const TaskConfig& config, bool env_has_jenkins_url);

}  // namespace jenkins_agent
