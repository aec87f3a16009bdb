#include "driver/config/plugin_config.h"

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/config/decode.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

absl::Status CheckLogCollection(const std::string& value) {
  if (value == kLogCollectionNomad) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(Quoted(value), " is not known (allowed: \"", kLogCollectionNomad, "\")"));
}

absl::Status Validate(const PluginConfig& config) {
  RETURN_IF_ERROR(CheckAbsolutePath(config.state_dir), "state_dir");
  RETURN_IF_ERROR(CheckLogCollection(config.log_collection), "log_collection");
  for (const std::string& home : config.java_homes) {
    RETURN_IF_ERROR(CheckAbsolutePath(home), "java_homes");
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Option> OptionsFor(PluginConfig& config) {
  return {
      {"state_dir", &config.state_dir,
       "where the driver keeps its state, an absolute path; one Nomad agent per directory"},
      {"log_collection", &config.log_collection,
       "who writes the tasks' log files; `nomad` is the only choice"},
      {"allow_root", &config.allow_root, "whether a job may run its program as root"},
      {"java_homes", &config.java_homes,
       "the Java installations to offer, absolute paths; left out: those in the usual places"},
  };
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
