// Tells that names or pins of an image store have changed, whoever changed them: this process,
// another plugin, or the operator's commands. By one inotify instance with a watch for each of the
// two folders, into which records are renamed when they are whole (store.h).
//
// Lives on the event loop's thread, destructor included.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

class StoreWatch {
 public:
  // `on_change` must not destroy the watch. One call may stand for many changes, and come without
  // one that matters. NotFound: there is no store.
  static absl::StatusOr<std::unique_ptr<StoreWatch>> Start(EventLoop* loop, const std::string& dir,
                                                           std::function<void()> on_change);
  ~StoreWatch();
  StoreWatch(const StoreWatch&) = delete;
  StoreWatch& operator=(const StoreWatch&) = delete;

  // Not once the store was removed: nothing is told any more.
  bool alive() const { return alive_; }

 private:
  StoreWatch(EventLoop* loop, Fd inotify, std::function<void()> on_change)
      : loop_(loop), inotify_(std::move(inotify)), on_change_(std::move(on_change)) {}
  void OnEvents();

  EventLoop* const loop_;
  const Fd inotify_;
  const std::function<void()> on_change_;
  bool alive_ = true;
};

}  // namespace jenkins_agent
