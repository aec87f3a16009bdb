#include "driver/base/event_loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "driver/base/status.h"

namespace jenkins_agent {
namespace {
constexpr uint64_t kWakeup = 0;  // no watcher has this generation
constexpr int kMaxEventsPerRound = 64;
}  // namespace

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return ErrnoStatus("epoll_create1");
  Fd wakeup(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wakeup) return ErrnoStatus("eventfd");
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = kWakeup;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wakeup.get(), &event) != 0) {
    return ErrnoStatus("epoll_ctl");
  }
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wakeup)));
}

absl::Status EventLoop::Watch(int fd, uint32_t events, std::function<void(uint32_t)> callback) {
  const auto it = watchers_.find(fd);
  const int operation = it == watchers_.end() ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  // The generation makes an event of a closed and reused descriptor number harmless.
  const uint64_t generation = next_generation_++;
  epoll_event event = {};
  event.events = events;
  event.data.u64 = (generation << 32) | static_cast<uint32_t>(fd);
  if (::epoll_ctl(epoll_.get(), operation, fd, &event) != 0) return ErrnoStatus("epoll_ctl");
  watchers_[fd] = {generation & 0xffffffff,
                   std::make_shared<std::function<void(uint32_t)>>(std::move(callback))};
  return absl::OkStatus();
}

void EventLoop::Unwatch(int fd) {
  if (watchers_.erase(fd) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::At(Clock::time_point when, std::function<void()> callback) {
  const TimerId id = next_timer_++;
  timers_.emplace(std::make_pair(when, id), std::move(callback));
  due_[id] = when;
  return id;
}

void EventLoop::Cancel(TimerId id) {
  const auto it = due_.find(id);
  if (it == due_.end()) return;
  timers_.erase({it->second, id});
  due_.erase(it);
}

void EventLoop::Post(std::function<void()> work) {
  {
    MutexLock lock(mutex_);
    posted_.push_back(std::move(work));
  }
  const uint64_t one = 1;
  (void)!::write(wakeup_.get(), &one, sizeof(one));  // full counter: a wakeup is pending anyway
}

void EventLoop::Quit() {
  {
    MutexLock lock(mutex_);
    quit_ = true;
  }
  const uint64_t one = 1;
  (void)!::write(wakeup_.get(), &one, sizeof(one));
}

int EventLoop::RunDueTimers() {
  while (!timers_.empty()) {
    const auto first = timers_.begin();
    const Clock::duration left = first->first.first - Clock::now();
    if (left > Clock::duration::zero()) {
      const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
      return static_cast<int>(std::min<int64_t>(ms, 60'000));
    }
    const std::function<void()> callback = std::move(first->second);
    due_.erase(first->first.second);
    timers_.erase(first);
    callback();
  }
  return -1;
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> work;
  {
    MutexLock lock(mutex_);
    work.swap(posted_);
  }
  for (const auto& item : work) item();
}

// Objects that only a callback has kept alive go here, and may post their own farewell.
EventLoop::~EventLoop() {
  for (;;) {
    const auto watchers = std::exchange(watchers_, {});
    const auto timers = std::exchange(timers_, {});
    std::vector<std::function<void()>> work;
    MutexLock lock(mutex_);
    work.swap(posted_);
    if (watchers.empty() && timers.empty() && work.empty()) return;
  }
}

void EventLoop::Run() {
  for (;;) {
    RunPosted();
    const int timeout_ms = RunDueTimers();
    {
      MutexLock lock(mutex_);
      if (quit_) return;
      // Work posted by a timer's callback also wrote the eventfd, so epoll_wait returns at once.
    }
    epoll_event events[kMaxEventsPerRound];
    const int count = ::epoll_wait(epoll_.get(), events, kMaxEventsPerRound, timeout_ms);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == kWakeup) {
        uint64_t ignored;
        (void)!::read(wakeup_.get(), &ignored, sizeof(ignored));
        continue;
      }
      const auto it = watchers_.find(static_cast<int>(events[i].data.u64 & 0xffffffff));
      if (it == watchers_.end() || it->second.generation != events[i].data.u64 >> 32) continue;
      const auto callback = it->second.callback;  // stays alive if it unwatches itself
      (*callback)(events[i].events);
    }
  }
}

}  // namespace jenkins_agent
