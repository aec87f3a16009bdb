#include "driver/task/agent_watch.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/agent/phases.h"

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;

// Looks of different agents meet on these marks; shorter delays are a test's.
constexpr milliseconds kMark{250};

EventLoop::Clock::time_point OnMark(EventLoop::Clock::time_point when) {
  return EventLoop::Clock::time_point(
      std::chrono::ceil<std::chrono::duration<int64_t, std::ratio<1, 4>>>(when.time_since_epoch()));
}

}  // namespace

HealthLimits LimitsOf(const pb::TaskStatus& status) {
  const pb::HealthSpec& health = status.health();
  HealthLimits limits;
  if (health.wedge_timeout_ms() > 0) limits.wedge_timeout = milliseconds(health.wedge_timeout_ms());
  if (health.start_timeout_ms() > 0) limits.start_timeout = milliseconds(health.start_timeout_ms());
  if (health.controller_grace_ms() > 0) {
    limits.controller_grace = milliseconds(health.controller_grace_ms());
  }
  limits.thread_limit = health.thread_limit();
  limits.max_age = milliseconds(status.max_age_ms());
  return limits;
}

AgentWatch::~AgentWatch() {
  loop_->Cancel(timer_);
  loop_->Cancel(ask_again_);
}

void AgentWatch::OnStatus(const pb::TaskStatus& status) {
  phase_ = status.phase();
  phase_detail_ = status.phase_detail();
  one_shot_ = status.one_shot();
  const bool runs = status.state() == pb::RUNNING && status.payload_pid() > 0;
  if (!runs) {
    probe_.reset();
    return LookIn(kAskAgain);
  }
  if (probe_.has_value() && launches_ == status.launches()) return;
  launches_ = status.launches();
  health_ = HealthWatch(LimitsOf(status), EventLoop::Clock::now());
  probe_.emplace(AgentProbe::Target{
      .pid = status.payload_pid(),
      .start_time = status.payload_start_time(),
      .network_namespace = network_namespace_,
      .cgroup_dirs = {status.cgroup_dirs().begin(), status.cgroup_dirs().end()}});
  LookIn(health_.NextLook(Health::kGood));
  if (one_shot_ && phase_ == pb::PHASE_TERMINATED && !ended_.has_value()) OnChannelEnded();
}

void AgentWatch::OnPhase(pb::AgentPhase phase, absl::string_view message) {
  phase_ = phase;
  if (absl::ConsumePrefix(&message, PhaseName(phase))) absl::ConsumePrefix(&message, ": ");
  phase_detail_ = std::string(message);
  if (!probe_.has_value()) handlers_.ask_status();  // it speaks, so it runs
  if (phase == pb::PHASE_CONNECTED) {
    ended_.reset();
    answers_after_end_.reset();
  }
  if (one_shot_ && phase == pb::PHASE_TERMINATED && !ended_.has_value()) OnChannelEnded();
}

void AgentWatch::Look() {
  if (!probe_.has_value()) {
    LookIn(kAskAgain);
    return handlers_.ask_status();
  }
  absl::StatusOr<HealthSample> sample = probe_->Look(phase_ == pb::PHASE_CONNECTED);
  if (!sample.ok()) {
    probe_.reset();
    LookIn(kAskAgain);
    return handlers_.ask_status();
  }
  sample->phase = phase_;
  sample->phase_detail = phase_detail_;
  AskController(*sample);
  sample->controller_answers = controller_answers_;
  const Health health = health_.Judge(*sample);
  LookIn(health_.NextLook(health.kind));
  if (!health.news.empty()) handlers_.on_news(health.news, health.crowded);
  if (health.kind == Health::kWedged) return handlers_.on_wedged(health.cause, launches_);
  if (health.kind == Health::kWorn) return handlers_.on_worn(health.cause, launches_);
  GiveUpIfAway(*sample);
}

// Not at once: most connections are back within seconds.
void AgentWatch::AskController(const HealthSample& sample) {
  if (sample.phase == pb::PHASE_CONNECTED) {
    asked_.reset();
    controller_answers_.reset();
    return;
  }
  if (!asked_.has_value()) asked_ = sample.time;
  if (sample.time - *asked_ < health_.AskInterval()) return;
  asked_ = sample.time;
  handlers_.ask_controller();
}

void AgentWatch::OnController(bool answers) {
  if (phase_ == pb::PHASE_CONNECTED) return;
  controller_answers_ = answers;
  if (answers_after_end_.has_value()) OnControllerAfterEnd(answers);
}

void AgentWatch::OnChannelEnded() {
  ended_ = EventLoop::Clock::now();
  answers_after_end_ = 0;
  handlers_.ask_controller();
}

void AgentWatch::OnControllerAfterEnd(bool answers) {
  if (!answers) return answers_after_end_.reset();
  if (++*answers_after_end_ >= kAnswersAfterEnd) return handlers_.on_done(launches_);
  loop_->Cancel(ask_again_);
  ask_again_ = loop_->After(health_.NextLook(Health::kSuspect), [this] {
    if (answers_after_end_.has_value()) handlers_.ask_controller();
  });
}

void AgentWatch::GiveUpIfAway(const HealthSample& sample) {
  const milliseconds grace = health_.limits().controller_grace;
  if (!ended_.has_value() || controller_answers_ != false || sample.time - *ended_ < grace) return;
  handlers_.on_given_up(absl::StrCat("one-shot agent: its controller has been away for ",
                                     std::chrono::ceil<std::chrono::seconds>(grace).count(),
                                     " s, all that health.controller_grace allows"));
}

void AgentWatch::LookIn(milliseconds delay) {
  loop_->Cancel(timer_);
  const auto when = EventLoop::Clock::now() + delay;
  timer_ = loop_->At(delay < kMark ? when : OnMark(when), [this] { Look(); });
}

}  // namespace jenkins_agent
