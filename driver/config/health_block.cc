#include "driver/config/health_block.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

constexpr absl::Duration kLongest = absl::Hours(24 * 7);
constexpr int64_t kMaxAttempts = 1000;

absl::Status CheckDuration(const std::string& text, absl::Duration least) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(text), " is no duration; write it like \"90s\", \"5m\" or \"1h30m\""));
  }
  if (duration < least || duration > kLongest) {
    return absl::InvalidArgumentError(
        absl::StrCat(text, " is out of range (allowed: ", absl::FormatDuration(least), " to ",
                     absl::FormatDuration(kLongest), ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckRange(int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(value, " is out of range (allowed: ", least, " to ", most, ")"));
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
       "whether an agent's JVM that dies, or says that it can do no more, is restarted in place"},
      {"leftovers", &health.leftovers,
       "which processes of a dead JVM's builds live on: `durable` build steps, `keep` all, or "
       "`kill` all"},
      {"restart", OptionBlock{&health.has_restart, OptionsFor(health.restart)},
       "how often the JVM is restarted in place"},
  };
}

absl::Status ValidateHealth(const HealthBlock& health) {
  RETURN_IF_ERROR(CheckLeftovers(health.leftovers), "health.leftovers");
  return ValidateRestart(health.restart);
}

std::chrono::milliseconds HealthDuration(const std::string& text) {
  absl::Duration duration;
  (void)absl::ParseDuration(text, &duration);  // checked by ValidateHealth
  return absl::ToChronoMilliseconds(duration);
}

}  // namespace jenkins_agent
