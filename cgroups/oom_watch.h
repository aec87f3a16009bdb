// Tells when the kernel runs out of a task's memory and kills in it.
//
// v1: an eventfd on memory.oom_control, rung just before the kill (mm/memcontrol-v1.c; absent on
// PREEMPT_RT). v2: memory.events, which is polled; no inotify, of which a user has 128.
// The event may come without a kill (the removal of a v1 directory rings too): the counter,
// Cgroup::OomKills, decides. Not thread-safe.
#pragma once

#include <sys/epoll.h>

#include <cstdint>

#include "driver/base/fd.h"

namespace jenkins_agent::cgroups {

class OomWatch {
 public:
  // To watch in an event loop, until Acknowledge says that there is nothing more.
  int fd() const { return event_.get(); }
  uint32_t events() const { return is_v2_ ? EPOLLPRI : EPOLLIN; }
  // Arms it for the next event, before the counter is read. False: the cgroup is gone.
  bool Acknowledge() const;

 private:
  friend class Cgroup;
  OomWatch(Fd event, bool is_v2) : event_(std::move(event)), is_v2_(is_v2) {}

  Fd event_;
  bool is_v2_;
};

}  // namespace jenkins_agent::cgroups
