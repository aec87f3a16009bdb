#include "driver/task/events.h"

#include <utility>
#include <vector>

namespace jenkins_agent {

void EventBus::Publish(TaskEvent event) {
  std::vector<Subscriber> targets;
  {
    MutexLock lock(mutex_);
    if (subscribers_.empty()) {
      if (kept_.size() == kMaxKept) kept_.pop_front();
      kept_.push_back(std::move(event));
      return;
    }
    for (const auto& [id, subscriber] : subscribers_) targets.push_back(subscriber);
  }
  for (const Subscriber& target : targets) target(event);
}

uint64_t EventBus::Subscribe(Subscriber subscriber) {
  // What is published meanwhile waits too, or it would overtake.
  for (;;) {
    std::deque<TaskEvent> waited;
    {
      MutexLock lock(mutex_);
      if (kept_.empty()) {
        subscribers_.emplace(next_id_, std::move(subscriber));
        return next_id_++;
      }
      waited.swap(kept_);
    }
    for (const TaskEvent& event : waited) subscriber(event);
  }
}

void EventBus::Unsubscribe(uint64_t id) {
  MutexLock lock(mutex_);
  subscribers_.erase(id);
}

}  // namespace jenkins_agent
