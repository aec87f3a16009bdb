// Follows the kernel's kills for want of memory in one task, and finds out whom they hit.
//
// At the event, which on v1 comes just before the kill, it looks at the task's processes and holds
// pidfds of the likeliest victims; whoever of them ends while the kernel's counter rises is the
// one. On a busy node all may be over by then: the kernel's log tells (oom_log.h). The payload's
// own death is its exit's to tell: it is left out here. Belongs to the event loop's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "cgroups/cgroup.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "driver/supervisor/oom_story.h"

namespace jenkins_agent {

class OomWatcher {
 public:
  // Of a crowd the largest are looked at; the kernel picks the largest.
  static constexpr size_t kMaxScanned = 512;
  static constexpr size_t kMaxSuspects = 8;
  // A victim that the scan missed is told of as the log has it, if at all; its own death, should it
  // be the payload, takes no longer to arrive.
  static constexpr std::chrono::milliseconds kNamePatience{500};
  // A build that dies again and again is one event in this time: Nomad keeps ten of a task.
  static constexpr std::chrono::minutes kTellInterval{10};

  // Kills beside the payload: how many since the last call, those with a name, the task's figures.
  using OnKills = std::function<void(uint64_t killed, const std::vector<OomProcess>& known)>;
  // `loop` and `cgroup` outlive it.
  OomWatcher(EventLoop* loop, const cgroups::Cgroup* cgroup, OnKills on_kills);
  ~OomWatcher();
  OomWatcher(const OomWatcher&) = delete;
  OomWatcher& operator=(const OomWatcher&) = delete;

  // An error leaves only the counter, which PayloadEnded reads.
  absl::Status Start();
  // Between the two a kill may be the payload's, whose pid is not known yet.
  void OnLaunching() { launching_ = true; }
  void OnLaunched(pid_t payload);

  struct PayloadEnd {
    bool killed = false;  // the kernel killed the payload itself
    // Kills in the task since its launch, beside the payload's own.
    uint64_t others = 0;
    std::vector<OomProcess> known;
  };
  // `by_sigkill`: how it ended. Starts anew for the next launch.
  PayloadEnd PayloadEnded(bool by_sigkill);

 private:
  struct Suspect {
    OomProcess process;
    uint64_t score = 0;
    Fd pidfd;
  };

  void OnEvent();
  void Scan();
  std::optional<Suspect> Look(pid_t pid) const;
  void OnSuspectEnded(pid_t pid);
  void Settle(bool patience_is_over);
  bool PayloadLives() const;
  // The last ones, beside the payload.
  std::vector<OomProcess> NamedByTheKernel(uint64_t kills) const;
  void Tell();
  void DropSuspects();
  uint64_t Counter() const;

  EventLoop* const loop_;
  const cgroups::Cgroup* const cgroup_;
  const OnKills on_kills_;
  std::optional<cgroups::OomWatch> watch_;
  bool launching_ = false;
  pid_t payload_ = 0;
  std::vector<Suspect> suspects_;
  uint64_t settled_;  // of the kernel's counter: known not to be the payload
  uint64_t since_launch_ = 0;
  std::vector<OomProcess> known_since_launch_;
  uint64_t untold_ = 0;
  std::vector<OomProcess> untold_known_;
  EventLoop::TimerId patience_ = 0;
  EventLoop::TimerId interval_ = 0;
};

}  // namespace jenkins_agent
