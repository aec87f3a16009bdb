#include "driver/agent/restart_policy.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

int FailureCode(int exit_code) { return exit_code == 0 ? 1 : exit_code; }

// "10 minutes", "90 s".
std::string InWords(std::chrono::milliseconds duration) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration).count();
  return seconds % 60 == 0 ? absl::StrCat(seconds / 60, " minutes") : absl::StrCat(seconds, " s");
}

}  // namespace

absl::string_view RestartReasonName(RestartReason reason) {
  switch (reason) {
    case RestartReason::kDied:
      return "died";
    case RestartReason::kOutOfMemory:
      return "out_of_memory";
    case RestartReason::kHung:
      return "hung";
    case RestartReason::kGaveUp:
      return "gave_up";
    case RestartReason::kAged:
      return "aged";
  }
  return "unknown";
}

void RestartPolicy::OnLaunch() {
  refused_in_this_launch_ = false;
  restart_.reset();
}

Decision RestartPolicy::OnPhase(const PhaseChange& change, TimePoint now) {
  if (end_.has_value()) return *end_;
  if (change.phase == pb::PHASE_CONNECTED) {
    ever_connected_ = true;
    next_delay_ = kFirstDelay;
    last_refusal_ = Refusal::kNone;
    refusals_ = 0;
  }
  if (change.phase == pb::PHASE_WEDGED) return Wedged(RestartReason::kGaveUp, change.detail, now);
  if (change.phase != pb::PHASE_REFUSED) return {};
  refused_in_this_launch_ = true;
  return CountRefusal(change.refusal, change.detail, now);
}

Decision RestartPolicy::OnVerdict(absl::string_view cause, TimePoint now) {
  return Wedged(RestartReason::kHung, cause, now);
}

Decision RestartPolicy::Wedged(RestartReason reason, absl::string_view cause, TimePoint now) {
  if (end_.has_value()) return *end_;
  if (restart_.has_value()) return {};  // on its way
  Decision decision =
      Restart(Decision::kRestart, absl::StrCat("agent '", agent_name_, "' hangs: ", cause), 1, now);
  decision.reason = reason;
  if (decision.kind == Decision::kRestart) restart_ = decision;
  return decision;
}

Decision RestartPolicy::OnAged(absl::string_view cause) {
  if (end_.has_value()) return *end_;
  if (restart_.has_value()) return {};  // on its way
  restart_ = Decision{.kind = Decision::kRestart,
                      .aged = true,
                      .reason = RestartReason::kAged,
                      .message = std::string(cause)};
  return *restart_;
}

Decision RestartPolicy::OnDone() {
  if (end_.has_value()) return *end_;
  return End("", 0);
}

Decision RestartPolicy::OnExit(const ExitFacts& facts, TimePoint now) {
  if (end_.has_value()) return *end_;
  if (restart_.has_value()) {
    Decision decision = *restart_;
    decision.kind = Decision::kRelaunch;
    return decision;
  }
  ever_connected_ = ever_connected_ || facts.ever_connected;
  // What an agent does that was told not to reconnect (jenkins-agent.md 1.4).
  if (one_shot_ && facts.phase == pb::PHASE_TERMINATED && ExitCodeOf(facts.wait_status) == 0) {
    return End("", 0);
  }
  std::string text = DescribeExit(facts, agent_name_);
  switch (ClassifyExit(facts)) {
    case ExitCause::kUsageError:
    case ExitCause::kJvmError:
      return End(std::move(text), FailureCode(ExitCodeOf(facts.wait_status)));
    case ExitCause::kRefused:
      return AfterRefusedExit(facts, now);
    case ExitCause::kUnreachable:
      return Relaunch(NextDelay(), std::move(text));
    case ExitCause::kOther:
      break;
  }
  return Restart(Decision::kRelaunch, std::move(text), FailureCode(ExitCodeOf(facts.wait_status)),
                 now);
}

// Builds of an agent that was connected wait for the next JVM, hence no delay for the first one.
Decision RestartPolicy::Restart(Decision::Kind kind, std::string cause, int exit_code,
                                TimePoint now) {
  while (!recent_.empty() && now - recent_.front() >= budget_.interval) recent_.pop_front();
  const int recent = static_cast<int>(recent_.size());
  if (recent >= budget_.attempts) {
    return End(recent == 0
                   ? std::move(cause)
                   : absl::StrCat(cause, "; restarted ", recent, " times within ",
                                  InWords(budget_.interval), ", all that health.restart allows"),
               exit_code);
  }
  Decision decision{.kind = kind, .counted = true, .message = std::move(cause)};
  for (int i = 1; i <= recent; ++i) {
    decision.delay = i == 1 ? budget_.delay : decision.delay * 2;
    if (decision.delay >= budget_.max_delay) break;
  }
  decision.delay = std::min(decision.delay, budget_.max_delay);
  recent_.push_back(now);
  ++restarts_;
  return decision;
}

Decision RestartPolicy::CountRefusal(Refusal refusal, absl::string_view reason, TimePoint now) {
  if (refusal != last_refusal_) {
    last_refusal_ = refusal;
    refusals_ = 0;
    first_refusal_ = now;
  }
  ++refusals_;
  std::string text = DescribeRefusal(agent_name_, refusal, reason);
  if (refusal == Refusal::kWrongSecret) {
    if (refusals_ >= kMaxWrongSecrets) return End(std::move(text), 1);
  } else if (refusal == Refusal::kUnknownName && ever_connected_) {
    // The controller has deleted the node: nobody waits for this agent any more. That of a one-shot
    // agent it deletes when all is done.
    if (one_shot_) return End("", 0);
    return End(absl::StrCat(text, "; it was connected before, so its node was deleted"), 1);
  } else if (now - first_refusal_ >= kRefusalPatience) {
    return End(absl::StrCat(text, " for ", kRefusalPatience.count(), " minutes"), 1);
  }
  return {};
}

Decision RestartPolicy::AfterRefusedExit(const ExitFacts& facts, TimePoint now) {
  if (!refused_in_this_launch_) {
    refused_in_this_launch_ = true;
    const Decision decision = CountRefusal(facts.refusal, facts.last_error, now);
    if (decision.kind == Decision::kEnd) return decision;
  }
  const std::chrono::milliseconds delay =
      facts.refusal == Refusal::kWrongSecret ? kWrongSecretDelay : NextDelay();
  return Relaunch(delay, DescribeRefusal(agent_name_, facts.refusal, facts.last_error));
}

Decision RestartPolicy::End(std::string message, int exit_code) {
  end_ = Decision{.kind = Decision::kEnd, .message = std::move(message), .exit_code = exit_code};
  return *end_;
}

Decision RestartPolicy::Relaunch(std::chrono::milliseconds delay, std::string message) const {
  return Decision{.kind = Decision::kRelaunch, .delay = delay, .message = std::move(message)};
}

// 1, 2, 4, 8, 10, 10 ... seconds.
std::chrono::milliseconds RestartPolicy::NextDelay() {
  const std::chrono::seconds delay = next_delay_;
  next_delay_ = std::min(next_delay_ * 2, kLongestDelay);
  return delay;
}

}  // namespace jenkins_agent
