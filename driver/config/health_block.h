// The task's `health { }`: when an agent's JVM counts as hanging, how often one that died or hangs
// is restarted in place, and what of its builds lives on. Values and pure checks. Durations are
// text as Nomad takes it: "90s", "5m", "1h30m".
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
  std::string wedge_timeout = "60s";
  std::string controller_grace = "10m";
  std::string start_timeout = "5m";
  int64_t thread_limit = 0;  // 0: 80 % of pids_limit
  std::string leftovers = kLeftoversDurable;
  bool has_restart = false;
  RestartBlock restart = {};
};

// The rows point into `health`.
std::vector<Option> OptionsFor(HealthBlock& health);

// Errors start with "health.". `pids_limit`: the task's.
absl::Status ValidateHealth(const HealthBlock& health, int64_t pids_limit);

// Of a value that ValidateHealth has let through.
std::chrono::milliseconds HealthDuration(const std::string& text);

}  // namespace jenkins_agent
