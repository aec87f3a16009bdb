// Watches one agent's JVM for as long as its task runs: looks at it now and then, judges
// (driver/agent/health.h), and says when it should be restarted.
//
// There is no thread for it: a look takes some ten microseconds on the plugin's event loop, and the
// looks of all agents fall on the same quarter seconds, so that hundreds of them wake the plugin
// once. Lives on the event loop's thread, destructor included.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "driver/agent/health.h"
#include "driver/base/event_loop.h"
#include "driver/task/agent_probe.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

class AgentWatch {
 public:
  using milliseconds = std::chrono::milliseconds;
  // A controller that shuts down closes its channels before its HTTP port: the end of a one-shot
  // agent's channel counts when it answers that many times, soon one after the other and before the
  // agent's own next try (10 s, jenkins-agent.md 1.4).
  static constexpr int kAnswersAfterEnd = 2;
  // How often the supervisor is asked while there is no JVM to look at.
  static constexpr std::chrono::seconds kAskAgain{15};

  struct Handlers {
    // The JVM of this launch hangs. Told again until another one runs.
    std::function<void(const std::string& cause, uint32_t launches)> on_wedged;
    // One line for the operator; `crowded`: the task came to health.thread_limit.
    std::function<void(const std::string& text, bool crowded)> on_news;
    std::function<void()> ask_status;      // the answer comes as OnStatus
    std::function<void()> ask_controller;  // as OnController
    // It is idle, and too old or full of threads.
    std::function<void(const std::string& cause, uint32_t launches)> on_worn;
    // Of a one-shot agent: its channel has ended while the controller is there.
    std::function<void(uint32_t launches)> on_done;
    // Of a one-shot agent: its controller has been away for longer than the grace.
    std::function<void(const std::string& cause)> on_given_up;
  };

  AgentWatch(EventLoop* loop, std::string network_namespace, Handlers handlers)
      : loop_(loop),
        network_namespace_(std::move(network_namespace)),
        handlers_(std::move(handlers)),
        health_(HealthLimits(), EventLoop::Clock::now()) {}
  ~AgentWatch();
  AgentWatch(const AgentWatch&) = delete;
  AgentWatch& operator=(const AgentWatch&) = delete;

  // What the supervisor says of the task now.
  void OnStatus(const pb::TaskStatus& status);
  // The same, heard of by an event: "locating: Connection refused".
  void OnPhase(pb::AgentPhase phase, absl::string_view message);
  // Whether the controller would take an agent now.
  void OnController(bool answers);

 private:
  void Look();
  void LookIn(milliseconds delay);
  void AskController(const HealthSample& sample);
  void OnChannelEnded();
  void OnControllerAfterEnd(bool answers);
  void GiveUpIfAway(const HealthSample& sample);

  EventLoop* const loop_;
  const std::string network_namespace_;
  const Handlers handlers_;
  EventLoop::TimerId timer_ = 0;
  HealthWatch health_;
  std::optional<AgentProbe> probe_;  // of the JVM that runs
  uint32_t launches_ = 0;            // which one that is
  pb::AgentPhase phase_ = pb::PHASE_NONE;
  std::string phase_detail_;
  // While it is not connected: since when or when asked last, and the last answer.
  std::optional<EventLoop::Clock::time_point> asked_;
  std::optional<bool> controller_answers_;

  bool one_shot_ = false;
  // Of a one-shot agent without its channel: since when, and the answers that came at once. None:
  // the controller was away, so the agent connects again.
  std::optional<EventLoop::Clock::time_point> ended_;
  std::optional<int> answers_after_end_;
  EventLoop::TimerId ask_again_ = 0;
};

// What a status leaves out is the default. Pure.
HealthLimits LimitsOf(const pb::TaskStatus& status);

}  // namespace jenkins_agent
