// One thread's event loop: descriptors, timers and work posted from other threads.
//
// Used by the supervisor (its only thread), by pid 1 and by the plugin's watcher thread.
// All methods but Post() and Quit() belong to the thread that calls Run(); callbacks run there, one
// at a time, and may add and remove anything, also themselves.
#pragma once

#include <sys/epoll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/base/mutex.h"

namespace jenkins_agent {

class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using TimerId = uint64_t;

  static absl::StatusOr<std::unique_ptr<EventLoop>> Create();
  ~EventLoop();  // what still waits is dropped, not run
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls `callback(events)` whenever one of `events` (EPOLLIN, EPOLLOUT, ...) holds. The
  // descriptor stays the caller's; Unwatch before closing it. Watching it again replaces events and
  // callback.
  absl::Status Watch(int fd, uint32_t events, std::function<void(uint32_t)> callback);
  void Unwatch(int fd);

  // Calls `callback` once, at or after `when`. Cancel of an id that has fired does nothing.
  TimerId At(Clock::time_point when, std::function<void()> callback);
  TimerId After(Clock::duration delay, std::function<void()> callback) {
    return At(Clock::now() + delay, std::move(callback));
  }
  void Cancel(TimerId id);

  // Runs `work` on the loop's thread, soon. Any thread.
  void Post(std::function<void()> work) ABSL_LOCKS_EXCLUDED(mutex_);

  // Runs until Quit(). Quit may come from any thread.
  void Run();
  void Quit();

 private:
  EventLoop(Fd epoll, Fd wakeup) : epoll_(std::move(epoll)), wakeup_(std::move(wakeup)) {}
  int RunDueTimers();  // -> epoll timeout in ms until the next one, -1 for none
  void RunPosted();

  struct Watcher {
    uint64_t generation;
    std::shared_ptr<std::function<void(uint32_t)>> callback;
  };
  const Fd epoll_;
  const Fd wakeup_;  // eventfd
  std::map<int, Watcher> watchers_;
  uint64_t next_generation_ = 1;
  std::map<std::pair<Clock::time_point, TimerId>, std::function<void()>> timers_;
  std::map<TimerId, Clock::time_point> due_;  // of each timer: a plugin has some for every task
  TimerId next_timer_ = 1;

  Mutex mutex_;
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
  bool quit_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace jenkins_agent
