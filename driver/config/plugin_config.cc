#include "driver/config/plugin_config.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/config/decode.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

absl::Status CheckLogCollection(const std::string& value) {
  if (value == kLogCollectionNomad || value == kLogCollectionDriver) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(Quoted(value), " is not known (allowed: \"",
                                                 kLogCollectionNomad, "\", \"",
                                                 kLogCollectionDriver, "\")"));
}

absl::Status CheckRange(int64_t value, int64_t maximum) {
  if (value >= 1 && value <= maximum) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(value, " is out of range (allowed: 1 to ", maximum, ")"));
}

absl::Status CheckLogs(const PluginConfig& config) {
  RETURN_IF_ERROR(CheckLogCollection(config.log_collection), "log_collection");
  RETURN_IF_ERROR(CheckRange(config.logs.max_files, kMaxLogFiles), "logs.max_files");
  RETURN_IF_ERROR(CheckRange(config.logs.max_file_size, kMaxLogFileMiB), "logs.max_file_size");
  if (!config.logs.present || config.log_collection == kLogCollectionDriver) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "logs: needs log_collection = \"driver\"; Nomad's own log files follow the job's logs block");
}

absl::Status CheckMetrics(const MetricsConfig& metrics) {
  if (!metrics.present) return absl::OkStatus();
  if (metrics.listen.empty()) {
    return absl::InvalidArgumentError("is missing; such as \"127.0.0.1:9465\"");
  }
  return ListenAddress(metrics.listen).status();
}

absl::Status Validate(const PluginConfig& config) {
  RETURN_IF_ERROR(CheckAbsolutePath(config.state_dir), "state_dir");
  RETURN_IF_ERROR(CheckLogs(config));
  RETURN_IF_ERROR(CheckMetrics(config.metrics), "metrics.listen");
  RETURN_IF_ERROR(ValidatePolicy(config.isolation));
  for (const std::string& home : config.java_homes) {
    RETURN_IF_ERROR(CheckAbsolutePath(home), "java_homes");
  }
  return ValidateImages(config.images);
}

std::vector<Option> LogOptions(LogLimits& logs) {
  return {
      {"max_files", &logs.max_files, "most files of each stream, 1 to 1000; the oldest goes first"},
      {"max_file_size", &logs.max_file_size, "most MiB in each file, 1 to 10240"},
  };
}

}  // namespace

std::vector<Option> OptionsFor(PluginConfig& config) {
  std::vector<Option> options = {
      {"state_dir", &config.state_dir,
       "where the driver keeps its state, an absolute path; one Nomad agent per directory"},
      {"log_collection", &config.log_collection,
       "who writes the tasks' log files: `nomad`, or `driver`, which saves Nomad's log helper "
       "process of each task"},
      {"logs", OptionBlock{&config.logs.present, LogOptions(config.logs)},
       "size of the log files with `log_collection = \"driver\"`, which does not see the job's "
       "`logs` block"},
      {"allow_root", &config.allow_root, "whether a job may run its program as root"},
  };
  for (Option& option : OptionsFor(config.isolation)) options.push_back(std::move(option));
  options.push_back(
      {"java_homes", &config.java_homes,
       "the Java installations to offer, absolute paths; left out: those in the usual places"});
  options.push_back({"metrics",
                     OptionBlock{&config.metrics.present,
                                 {{"listen", &config.metrics.listen,
                                   "address and port (1024 or more) of the endpoint; only a port: "
                                   "on the loopback address"}}},
                     "an endpoint for Prometheus; left out: none"});
  options.push_back(ImagesOption(config.images));
  return options;
}

absl::Status ValidatePluginConfig(const PluginConfig& config) {
  return Annotate(Validate(config), "plugin config");
}

absl::StatusOr<PluginConfig> DecodePluginConfig(const std::string& msgpack) {
  PluginConfig config;
  RETURN_IF_ERROR(DecodeOptions(msgpack, OptionsFor(config)), "plugin config");
  RETURN_IF_ERROR(ValidatePluginConfig(config));
  return config;
}

}  // namespace jenkins_agent
