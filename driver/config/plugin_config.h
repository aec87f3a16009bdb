// The client agent's `plugin "nomad-driver-jenkins-agent" { config { } }`. A value, with its option
// table, decoder and checks. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/config/image_block.h"
#include "driver/config/isolation.h"
#include "driver/config/options.h"

namespace jenkins_agent {

inline constexpr char kLogCollectionNomad[] = "nomad";
inline constexpr char kLogCollectionDriver[] = "driver";

inline constexpr int64_t kMaxLogFiles = 1000;
inline constexpr int64_t kMaxLogFileMiB = 10240;

// Of each of a task's two streams, when the driver writes the log files. Nomad does not hand on a
// job's own `logs { }`.
struct LogLimits {
  bool present = false;
  int64_t max_files = 10;  // Nomad's defaults
  int64_t max_file_size = 10;
};

// Where Prometheus finds the driver's figures.
struct MetricsConfig {
  bool present = false;
  std::string listen = {};
};

struct PluginConfig {
  std::string state_dir = "/var/lib/nomad-driver-jenkins-agent";
  std::string log_collection = kLogCollectionNomad;
  LogLimits logs = {};
  bool allow_root = false;
  IsolationPolicy isolation = {};
  MetricsConfig metrics = {};
  std::vector<std::string> java_homes = {};  // empty: the usual places
  ImagesBlock images = {};
};

// The rows point into `config`.
std::vector<Option> OptionsFor(PluginConfig& config);

// Decodes and validates. Empty bytes are all defaults. Errors are InvalidArgument, for the
// operator, and start with "plugin config: ".
absl::StatusOr<PluginConfig> DecodePluginConfig(const std::string& msgpack);

absl::Status ValidatePluginConfig(const PluginConfig& config);

}  // namespace jenkins_agent
