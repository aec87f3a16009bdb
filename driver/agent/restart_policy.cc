#include "driver/agent/restart_policy.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

int FailureCode(int exit_code) { return exit_code == 0 ? 1 : exit_code; }

}  // namespace

void RestartPolicy::OnLaunch() { refused_in_this_launch_ = false; }

Decision RestartPolicy::OnPhase(const PhaseChange& change, TimePoint now) {
  if (end_.has_value()) return *end_;
  if (change.phase == pb::PHASE_CONNECTED) {
    ever_connected_ = true;
    next_delay_ = kFirstDelay;
    last_refusal_ = Refusal::kNone;
    refusals_ = 0;
  }
  if (change.phase != pb::PHASE_REFUSED) return {};
  refused_in_this_launch_ = true;
  return CountRefusal(change.refusal, change.detail, now);
}

Decision RestartPolicy::OnExit(const ExitFacts& facts, TimePoint now) {
  if (end_.has_value()) return *end_;
  ever_connected_ = ever_connected_ || facts.ever_connected;
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
  Decision decision;
  decision.message = std::move(text);
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
    // The controller has deleted the node: nobody waits for this agent any more.
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
