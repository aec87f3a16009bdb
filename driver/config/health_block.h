// The task's `health { }`: when an agent counts as wedged and how often its JVM is restarted in
// place. Values and pure checks. Durations are text as Nomad takes it: "90s", "5m", "1h30m".
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "driver/config/options.h"

namespace jenkins_agent {

inline constexpr char kLeftoversDurable[] = "durable";
inline constexpr char kLeftoversKeep[] = "keep";
inline constexpr char kLeftoversKill[] = "kill";

struct RestartBlock {
  int64_t attempts = 5;
  std::string interval = "10m";
  std::string delay = "1s";
  std::string max_delay = "1m";
};

struct HealthBlock {
  bool enabled = true;
  std::string start_timeout = "5m";
  std::string wedge_timeout = "60s";
  std::string controller_grace = "10m";
  int64_t thread_limit = 80;
  std::string leftovers = kLeftoversDurable;
  bool has_restart = false;
  RestartBlock restart = {};
};

// The rows point into `health`.
std::vector<Option> OptionsFor(HealthBlock& health);

// Errors start with "health.".
absl::Status ValidateHealth(const HealthBlock& health);

// Of a value that ValidateHealth has let through.
std::chrono::milliseconds HealthDuration(const std::string& text);

}  // namespace jenkins_agent
