// Whom the kernel kills first when a task has used up its memory: a build before the agent's JVM.
//
// A process inherits the oom_score_adj of its parent (proc(5)), and its own may be raised without
// any capability but not lowered again. So the JVM keeps its score, and what it starts gets a
// higher one: JDKs since 13 execute their own lib/jspawnhelper for each new process, fanotify(7)
// tells of that execution with the process, and whatever a build starts inherits the score from
// there. Best effort: builds that start while the plugin is away, and those of older JDKs, keep the
// JVM's.
#pragma once

#include <sys/types.h>

#include <memory>

#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

// In thousandths of the memory limit, which the kernel adds to what a process uses (oom_badness()
// in mm/oom_kill.c): more than a JVM has, whose heap is a quarter of the limit.
inline constexpr int kBuildOomScoreAdj = 500;

// Thread-safe but for its end: `loop` has to outlive it.
class OomOrder {
 public:
  // Unimplemented, PermissionDenied, ...: this host has no fanotify for us.
  static absl::StatusOr<std::unique_ptr<OomOrder>> Create(EventLoop* loop);
  ~OomOrder();
  OomOrder(const OomOrder&) = delete;
  OomOrder& operator=(const OomOrder&) = delete;

  // What this JVM starts is preferred from now on, and what others start with the same file: of the
  // node's JDK all, of an image's own those that come after it in its sandbox (overlayfs has a file
  // of its own for each mount). A JVM that has ended, or a JDK without a jspawnhelper, is fine.
  // Idempotent.
  void Watch(pid_t jvm);

 private:
  OomOrder(EventLoop* loop, std::shared_ptr<const Fd> group)
      : loop_(loop), group_(std::move(group)) {}

  EventLoop* const loop_;
  const std::shared_ptr<const Fd> group_;  // shared with the loop, which may still be reading
};

}  // namespace jenkins_agent
