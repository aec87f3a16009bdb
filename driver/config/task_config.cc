#include "driver/config/task_config.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/config/decode.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

struct NamedFlag {
  absl::string_view name;
  bool set;
};

absl::Status CheckOneProgram(const TaskConfig& config) {
  const NamedFlag programs[] = {
      {"agent", config.has_agent},
      {"jar_path", !config.jar_path.empty()},
      {"class", !config.class_name.empty()},
      {"command", !config.command.empty()},
  };
  absl::string_view first;
  for (const NamedFlag& program : programs) {
    if (!program.set) continue;
    if (!first.empty()) {
      return Invalid("\"", first, "\" and \"", program.name,
                     "\" are both set; choose one way to name the program: agent { }, jar_path or "
                     "class, or command");
    }
    first = program.name;
  }
  return absl::OkStatus();
}

absl::Status CheckJavaOptionsHaveJava(const TaskConfig& config) {
  if (config.command.empty()) return absl::OkStatus();
  const NamedFlag java_options[] = {
      {"java_home", !config.java_home.empty()},
      {"java_version", !config.java_version.empty()},
      {"jvm_options", !config.jvm_options.empty()},
  };
  for (const NamedFlag& option : java_options) {
    if (option.set) {
      return Invalid(option.name,
                     ": has no effect on \"command\"; remove it, or name the program by "
                     "agent { }, jar_path or class");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckArgsHaveProgram(const TaskConfig& config) {
  const bool entrypoint = !config.image.image.empty() && !config.has_agent;
  const bool takes_args = entrypoint || !config.jar_path.empty() || !config.class_name.empty() ||
                          !config.command.empty();
  if (!config.args.empty() && !takes_args) {
    return Invalid(
        "args: belongs to jar_path, class, command or an image's own program; further options of "
        "an agent go into "
        "agent.extra_args");
  }
  if (!config.class_path.empty() && config.class_name.empty()) {
    return Invalid("class_path: is only used with class; remove it or set class");
  }
  return absl::OkStatus();
}

// Both are the probes' work.
absl::Status CheckModeHasHealth(const TaskConfig& config) {
  if (config.health.enabled) return absl::OkStatus();
  if (config.agent.mode == kModeOneShot) {
    return Invalid("agent.mode: \"one_shot\" needs health.enabled");
  }
  if (!config.agent.max_age.empty()) return Invalid("agent.max_age: needs health.enabled");
  return absl::OkStatus();
}

absl::Status CheckOneJava(const TaskConfig& config) {
  if (!config.java_home.empty() && !config.java_version.empty()) {
    return Invalid(
        "\"java_home\" and \"java_version\" are both set; java_home already decides which "
        "Java runs, remove one of them");
  }
  return absl::OkStatus();
}

// Anything that `java` would take for the program instead of an option.
absl::Status CheckJvmOptions(const std::vector<std::string>& jvm_options) {
  for (const std::string& option : jvm_options) {
    if (option.empty()) return Invalid("contains an empty string; remove it");
    if (option == "-jar") {
      return Invalid("contains -jar; name the program by agent { }, jar_path or class");
    }
    if (absl::StartsWith(option, "@")) {
      return Invalid("contains ", Quoted(option),
                     "; argument files are not read here, write the options into the list");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPidsLimit(int64_t limit) {
  if (limit < kMinPidsLimit) {
    return Invalid(limit, " is too small; a JVM needs at least ", kMinPidsLimit,
                   " (allowed: ", kMinPidsLimit, " to ", kMaxPidsLimit, ")");
  }
  if (limit > kMaxPidsLimit) {
    return Invalid(limit, " is too large; Linux has at most ", kMaxPidsLimit,
                   " process ids (allowed: ", kMinPidsLimit, " to ", kMaxPidsLimit, ")");
  }
  return absl::OkStatus();
}

// docker's range of blkio-weight, 0 for none (cgroups/limits.h says how it reaches the kernel).
absl::Status CheckIoWeight(int64_t weight) {
  if (weight == 0 || (weight >= 10 && weight <= 1000)) return absl::OkStatus();
  return Invalid(weight, " is out of range (allowed: 10 to 1000; other tasks have 100)");
}

absl::Status CheckValues(const TaskConfig& config) {
  struct Row {
    absl::string_view path;
    const std::string& value;
    absl::Status (*check)(absl::string_view);
  };
  const Row rows[] = {
      {"java_home", config.java_home, CheckAbsolutePath},
      {"java_version", config.java_version, CheckJavaVersion},
      {"class", config.class_name, CheckJavaClass},
      {"work_dir", config.work_dir, CheckAbsolutePath},
  };
  for (const Row& row : rows) {
    if (!row.value.empty()) RETURN_IF_ERROR(row.check(row.value), row.path);
  }
  RETURN_IF_ERROR(CheckJvmOptions(config.jvm_options), "jvm_options");
  RETURN_IF_ERROR(CheckPidsLimit(config.pids_limit), "pids_limit");
  return Annotate(CheckIoWeight(config.io_weight), "io_weight");
}

absl::Status Validate(const TaskConfig& config) {
  RETURN_IF_ERROR(CheckOneProgram(config));
  RETURN_IF_ERROR(CheckJavaOptionsHaveJava(config));
  RETURN_IF_ERROR(CheckArgsHaveProgram(config));
  RETURN_IF_ERROR(CheckOneJava(config));
  RETURN_IF_ERROR(CheckValues(config));
  RETURN_IF_ERROR(ValidateAgentBlock(config.agent));
  RETURN_IF_ERROR(CheckModeHasHealth(config));
  RETURN_IF_ERROR(ValidateHealth(config.health, config.pids_limit));
  RETURN_IF_ERROR(ValidateImage(config.image));
  return ValidateIsolation(config.isolation, !config.image.image.empty());
}

}  // namespace

std::vector<Option> OptionsFor(TaskConfig& config) {
  std::vector<Option> options = {
      {"agent", OptionBlock{&config.has_agent, OptionsFor(config.agent)},
       "run an inbound Jenkins agent; also without the block when `JENKINS_URL` is in the task's "
       "environment and no other program is named"},
      {"health", OptionBlock{&config.has_health, OptionsFor(config.health)},
       "what happens when an agent's JVM dies or hangs"},
      {"java_home", &config.java_home,
       "the Java installation to run, an absolute path; left out: the newest that fits"},
      {"java_version", &config.java_version, "the Java version to run, such as `17`"},
      {"jvm_options", &config.jvm_options, "options of the JVM; they win over the driver's own"},
      {"class_data_sharing", &config.class_data_sharing,
       "whether an agent's JVM starts with an archive of its classes, which the driver makes in "
       "the "
       "background and keeps for each JDK and `agent.jar`"},
      {"jar_path", &config.jar_path, "run this jar"},
      {"class", &config.class_name, "run this class"},
      {"class_path", &config.class_path, "where Java looks for `class`"},
      {"command", &config.command, "run this program"},
      {"args", &config.args, "arguments of the jar, class or command"},
      {"work_dir", &config.work_dir, "working directory in the sandbox, an absolute path"},
      {"pids_limit", &config.pids_limit,
       "most processes and threads that the task may have, 40 to 4194304"},
      {"cpu_hard_limit", &config.cpu_hard_limit,
       "never more CPU than the job's `cpu` (or `cores`), also when the node is idle"},
      {"io_weight", &config.io_weight,
       "the task's weight when disk I/O is short, 10 to 1000; the other tasks have 100 (`0` "
       "too); needs a disk with the I/O scheduler `bfq`, or cgroup v2's io.cost"},
  };
  for (Option& option : OptionsFor(config.image)) options.push_back(std::move(option));
  for (Option& option : OptionsFor(config.isolation)) options.push_back(std::move(option));
  return options;
}

absl::Status ValidateTaskConfig(const TaskConfig& config) {
  return Annotate(Validate(config), "config");
}

absl::StatusOr<TaskConfig> DecodeTaskConfig(const std::string& msgpack) {
  TaskConfig config;
  RETURN_IF_ERROR(DecodeOptions(msgpack, OptionsFor(config)), "config");
  RETURN_IF_ERROR(ValidateTaskConfig(config));
  return config;
}

absl::Status ValidateProgramChoice(const TaskConfig& config, bool env_has_jenkins_url) {
  const bool named = config.has_agent || !config.jar_path.empty() || !config.class_name.empty() ||
                     !config.command.empty() || !config.image.image.empty();
  if (named || env_has_jenkins_url) return absl::OkStatus();
  return Invalid(
      "config: no program: set agent { url = ... }, jar_path, class, command or image (or "
      "JENKINS_URL in the task's environment)");
}

}  // namespace jenkins_agent
