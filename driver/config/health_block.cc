#include "driver/config/health_block.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

constexpr int64_t kMaxAttempts = 1000;

absl::Status CheckRange(int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(value, " is out of range (allowed: ", least, " to ", most, ")"));
}

absl::Status CheckThreadLimit(int64_t limit, int64_t pids_limit) {
  if (limit <= pids_limit) return CheckRange(limit, 0, pids_limit);
  return absl::InvalidArgumentError(
      absl::StrCat(limit, " is more than pids_limit, ", pids_limit, ": it could never be reached"));
}

absl::Status CheckLeftovers(const std::string& rule) {
  if (rule == kLeftoversDurable || rule == kLeftoversKeep || rule == kLeftoversKill) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(Quoted(rule), " is unknown (allowed: \"",
                                                 kLeftoversDurable, "\", \"", kLeftoversKeep,
                                                 "\", \"", kLeftoversKill, "\")"));
}

absl::Status ValidateRestart(const RestartBlock& restart) {
  RETURN_IF_ERROR(CheckRange(restart.attempts, 0, kMaxAttempts), "health.restart.attempts");
  RETURN_IF_ERROR(CheckDuration(restart.interval, absl::Seconds(1)), "health.restart.interval");
  RETURN_IF_ERROR(CheckDuration(restart.delay, absl::ZeroDuration()), "health.restart.delay");
  RETURN_IF_ERROR(CheckDuration(restart.max_delay, absl::ZeroDuration()),
                  "health.restart.max_delay");
  if (HealthDuration(restart.max_delay) < HealthDuration(restart.delay)) {
    return absl::InvalidArgumentError(absl::StrCat("health.restart.max_delay: ", restart.max_delay,
                                                   " is less than health.restart.delay, ",
                                                   restart.delay));
  }
  return absl::OkStatus();
}

std::vector<Option> OptionsFor(RestartBlock& restart) {
  return {
      {"attempts", &restart.attempts,
       "most restarts within `interval`; then the task fails, and Nomad's own restart and "
       "reschedule rules apply; 0: the end of the JVM is the end of the task"},
      {"interval", &restart.interval, "the time in which restarts are counted"},
      {"delay", &restart.delay,
       "wait before the second restart within `interval`, doubled for each further one; the first "
       "is at once"},
      {"max_delay", &restart.max_delay, "longest wait between two restarts"},
  };
}

}  // namespace

std::vector<Option> OptionsFor(HealthBlock& health) {
  return {
      {"enabled", &health.enabled,
       "whether an agent's JVM that dies or hangs is restarted in place"},
      {"wedge_timeout", &health.wedge_timeout,
       "without a sign of life for that long a JVM hangs: stopped, no longer reading from its "
       "controller, without a connection that it believes in; at least `5s`"},
      {"controller_grace", &health.controller_grace,
       "not connected for that long although the controller answers: a JVM hangs; at least `10s`"},
      {"start_timeout", &health.start_timeout,
       "not connected for that long: an event with the last thing that the agent said; a JVM that "
       "has said nothing of its controller by then hangs; at least `10s`"},
      {"thread_limit", &health.thread_limit,
       "from that many processes and threads of the task on an event tells the numbers, and an "
       "idle "
       "JVM that has come to keep so many is replaced; `0`: 80 % of `pids_limit`"},
      {"leftovers", &health.leftovers,
       "which processes of a dead JVM's builds live on: `durable` build steps, `keep` all, or "
       "`kill` all"},
      {"restart", OptionBlock{&health.has_restart, OptionsFor(health.restart)},
       "how often the JVM is restarted in place"},
  };
}

absl::Status ValidateHealth(const HealthBlock& health, int64_t pids_limit) {
  RETURN_IF_ERROR(CheckDuration(health.wedge_timeout, absl::Seconds(5)), "health.wedge_timeout");
  RETURN_IF_ERROR(CheckDuration(health.controller_grace, absl::Seconds(10)),
                  "health.controller_grace");
  RETURN_IF_ERROR(CheckDuration(health.start_timeout, absl::Seconds(10)), "health.start_timeout");
  RETURN_IF_ERROR(CheckThreadLimit(health.thread_limit, pids_limit), "health.thread_limit");
  RETURN_IF_ERROR(CheckLeftovers(health.leftovers), "health.leftovers");
  return ValidateRestart(health.restart);
}

std::chrono::milliseconds HealthDuration(const std::string& text) {
  absl::Duration duration;
  (void)absl::ParseDuration(text, &duration);  // checked by ValidateHealth
  return absl::ToChronoMilliseconds(duration);
}

}  // namespace jenkins_agent
