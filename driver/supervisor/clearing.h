// Ends what the builds of a dead agent left running, before the next JVM is launched in their
// midst.
//
// A process of its own does it, outside the sandbox: all of the task stands still meanwhile, so
// that nothing forks past it (a fork bomb included), and whoever reads a hostile program's
// environment may be made to hang (its memory can lie on a slow volume). Spared are durable builds,
// exec sessions and, by the job's rule, everything (spike.md 3.3).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cgroups/cgroup.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

class Clearing {
 public:
  static constexpr std::chrono::seconds kLimit{10};

  struct Rule {
    bool spare_durable = true;           // by their environment
    std::vector<pid_t> spared_sessions;  // session ids, as the sandbox numbers them
  };
  // How many processes were ended, or why not all of them.
  using OnEnd = std::function<void(absl::StatusOr<size_t>)>;

  // Begins at once. `on_end` is called once, from the loop, unless this object is destroyed before:
  // then the clearing stops where it is. `loop` and `cgroup` outlive this object.
  static absl::StatusOr<std::unique_ptr<Clearing>> Start(EventLoop* loop,
                                                         const cgroups::Cgroup& cgroup,
                                                         const Rule& rule, OnEnd on_end);
  ~Clearing();
  Clearing(const Clearing&) = delete;
  Clearing& operator=(const Clearing&) = delete;

 private:
  Clearing(EventLoop* loop, const cgroups::Cgroup& cgroup, OnEnd on_end)
      : loop_(loop), cgroup_(cgroup), on_end_(std::move(on_end)) {}
  void OnAnswer();
  void OnLate();
  void Finish(absl::StatusOr<size_t> result);
  void Stop();

  EventLoop* const loop_;
  const cgroups::Cgroup& cgroup_;
  const OnEnd on_end_;
  pid_t pid_ = 0;  // of the process; 0 once it is reaped
  Fd answer_;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace jenkins_agent
