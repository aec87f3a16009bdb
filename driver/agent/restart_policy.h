// Decides what follows an agent's exit or refusal: launch again, wait, or end the task and why.
//
// An unreachable controller is waited for without limit, for either generation of agents. A refusal
// that time can cure (node not created yet, the name's old connection not yet noticed as dead) is
// tried for kRefusalPatience. The rest ends the task with its cause in one line. Exits that say
// nothing about the controller (killed, crashed, out of memory) end the task with that exit.
//
// Owned by the supervisor, one per task. Not thread-safe. Pure: time is passed in, monotonic.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "driver/agent/exit.h"
#include "driver/agent/phases.h"

namespace jenkins_agent {

struct Decision {
  enum Kind {
    kNone,      // OnPhase: go on. OnExit: the task ends with this exit
    kRelaunch,  // after `delay`
    kEnd,       // the task ends with `message` and `exit_code`; a running JVM is stopped
  };
  Kind kind = kNone;
  std::chrono::milliseconds delay{0};  // kRelaunch
  std::string message;  // kEnd: the cause; kRelaunch: what is waited for; OnExit's kNone: the exit
  int exit_code = 0;    // kEnd: never 0
};

class RestartPolicy {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  static constexpr std::chrono::seconds kFirstDelay{1};
  static constexpr std::chrono::seconds kLongestDelay{10};
  static constexpr std::chrono::seconds kWrongSecretDelay{5};
  static constexpr std::chrono::minutes kRefusalPatience{5};
  static constexpr int kMaxWrongSecrets = 2;

  explicit RestartPolicy(absl::string_view agent_name) : agent_name_(agent_name) {}

  void OnLaunch();
  Decision OnPhase(const PhaseChange& change, TimePoint now);
  Decision OnExit(const ExitFacts& facts, TimePoint now);

 private:
  // Counts one refusal; kEnd when this was one too many.
  Decision CountRefusal(Refusal refusal, absl::string_view reason, TimePoint now);
  Decision AfterRefusedExit(const ExitFacts& facts, TimePoint now);
  Decision End(std::string message, int exit_code);
  Decision Relaunch(std::chrono::milliseconds delay, std::string message) const;
  std::chrono::milliseconds NextDelay();

  const std::string agent_name_;
  bool ever_connected_ = false;
  std::chrono::seconds next_delay_ = kFirstDelay;
  bool refused_in_this_launch_ = false;
  Refusal last_refusal_ = Refusal::kNone;  // the streak: refusals of one kind without a connection
  int refusals_ = 0;
  TimePoint first_refusal_;
  std::optional<Decision> end_;  // once decided it stays
};

}  // namespace jenkins_agent
