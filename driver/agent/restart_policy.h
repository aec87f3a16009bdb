// Decides what follows an agent's exit, refusal or bad health: go on, launch again, wait, or end
// the task and why. The whole table is in driver/README.md, "Health".
//
// An unreachable controller is waited for without limit, for either generation of agents. A refusal
// that time can cure (node not created yet, the name's old connection not yet noticed as dead) is
// tried for kRefusalPatience. A JVM that died or hangs is restarted in place, within the job's
// budget: what its builds left running lives on. The rest ends the task with its cause in one line.
//
// Owned by the supervisor, one per task. Not thread-safe. Pure: time is passed in, monotonic.
#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "driver/agent/exit.h"
#include "driver/agent/phases.h"

namespace jenkins_agent {

// Why a JVM is replaced in place.
enum class RestartReason {
  kDied,
  kOutOfMemory,
  kHung,    // says whoever looks at it from outside
  kGaveUp,  // by its own words
  kAged,    // it is idle and too old
};
// "died", "out_of_memory", "hung", "gave_up", "aged".
absl::string_view RestartReasonName(RestartReason reason);

struct Decision {
  enum Kind {
    kNone,      // go on
    kRelaunch,  // OnExit: launch again after `delay`
    kRestart,   // OnPhase, OnVerdict: stop the JVM, then launch again after `delay`
    kEnd,       // the task ends with `message` and `exit_code`; a running JVM is stopped
  };
  Kind kind = kNone;
  std::chrono::milliseconds delay{0};  // kRelaunch, kRestart
  // A restart of a JVM that worked once, or should have: it counts against the budget, and what the
  // dead JVM's builds left is cleared first. False: nothing ran, the controller is waited for.
  bool counted = false;
  // A restart of an idle JVM that is only too old: nothing is lost, and nothing counted.
  bool aged = false;
  RestartReason reason = RestartReason::kDied;  // when it is counted or aged
  std::string message;  // kEnd, kRestart: the cause; kRelaunch: what is waited for, or the cause
  int exit_code = 0;    // kEnd: 0 only for a one-shot agent that is done
};

// The job's `health.restart` block.
struct RestartBudget {
  int attempts = 5;  // restarts within `interval`; 0: never
  std::chrono::milliseconds interval = std::chrono::minutes(10);
  // Before the second restart within `interval`, doubled for each further one. The first one is
  // at once: builds that survived wait for their agent.
  std::chrono::milliseconds delay = std::chrono::seconds(1);
  std::chrono::milliseconds max_delay = std::chrono::minutes(1);
};

class RestartPolicy {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  static constexpr std::chrono::seconds kFirstDelay{1};
  static constexpr std::chrono::seconds kLongestDelay{10};
  static constexpr std::chrono::seconds kWrongSecretDelay{5};
  static constexpr std::chrono::minutes kRefusalPatience{5};
  static constexpr int kMaxWrongSecrets = 2;

  // `one_shot`: the agent is there for one channel, whose end completes the task.
  explicit RestartPolicy(absl::string_view agent_name, RestartBudget budget = {},
                         bool one_shot = false)
      : agent_name_(agent_name), budget_(budget), one_shot_(one_shot) {}

  void OnLaunch();
  Decision OnPhase(const PhaseChange& change, TimePoint now);
  // The health of a JVM that runs: "its process is stopped (state T) for 60 s".
  Decision OnVerdict(absl::string_view cause, TimePoint now);
  // A JVM that is in order, idle and older than it should be.
  Decision OnAged(absl::string_view cause);
  // A one-shot agent's channel has ended, and its controller is there.
  Decision OnDone();
  // After a kRestart too: the JVM's end that it asked for is not judged again.
  Decision OnExit(const ExitFacts& facts, TimePoint now);

  int restarts() const { return restarts_; }  // counted ones, over the task's life

 private:
  // Counts one refusal; kEnd when this was one too many.
  Decision CountRefusal(Refusal refusal, absl::string_view reason, TimePoint now);
  Decision AfterRefusedExit(const ExitFacts& facts, TimePoint now);
  Decision Wedged(RestartReason reason, absl::string_view cause, TimePoint now);
  Decision Restart(Decision::Kind kind, std::string cause, int exit_code, TimePoint now);
  Decision End(std::string message, int exit_code);
  Decision Relaunch(std::chrono::milliseconds delay, std::string message) const;
  std::chrono::milliseconds NextDelay();

  const std::string agent_name_;
  const RestartBudget budget_;
  const bool one_shot_;
  int restarts_ = 0;
  std::deque<TimePoint> recent_;     // restarts within the budget's interval
  std::optional<Decision> restart_;  // decided for the JVM that is being stopped
  bool ever_connected_ = false;
  std::chrono::seconds next_delay_ = kFirstDelay;
  bool refused_in_this_launch_ = false;
  Refusal last_refusal_ = Refusal::kNone;  // the streak: refusals of one kind without a connection
  int refusals_ = 0;
  TimePoint first_refusal_;
  std::optional<Decision> end_;  // once decided it stays
};

}  // namespace jenkins_agent
