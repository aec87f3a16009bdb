// What the operator should see in `nomad alloc status`, on its way to the TaskEvents stream.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>

#include "driver/base/mutex.h"

namespace jenkins_agent {

struct TaskEvent {
  std::string task_id;
  std::string alloc_id;
  std::string task_name;
  int64_t time_ns = 0;  // CLOCK_REALTIME
  std::string message;
  std::map<std::string, std::string> details;
};

// Hands events to the subscribers (one per TaskEvents stream). While there is none, the newest
// kMaxKept wait for the first, because Nomad opens the stream a moment after it starts the plugin.
// Thread-safe. Subscribers are called on the thread of Publish, outside the lock.
class EventBus {
 public:
  using Subscriber = std::function<void(const TaskEvent&)>;
  static constexpr size_t kMaxKept = 128;

  void Publish(TaskEvent event) ABSL_LOCKS_EXCLUDED(mutex_);
  // Returns an id for Unsubscribe; first delivers what waited, in order.
  uint64_t Subscribe(Subscriber subscriber) ABSL_LOCKS_EXCLUDED(mutex_);
  void Unsubscribe(uint64_t id) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  Mutex mutex_;
  std::map<uint64_t, Subscriber> subscribers_ ABSL_GUARDED_BY(mutex_);
  std::deque<TaskEvent> kept_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
};

}  // namespace jenkins_agent
