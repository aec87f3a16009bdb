// The plugin's side of its metrics listener (driver/metrics/listener.h): starts it, answers its
// questions, starts it again when it dies. It ends with the plugin, whose end of the socket it
// watches.
//
// Lives on the event loop's thread; destroyed there, or when that thread has ended.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "driver/base/subprocess.h"
#include "driver/metrics/metrics.h"
#include "driver/task/measure.h"
#include "driver/task/store.h"
#include "proto/metrics.pb.h"

namespace jenkins_agent {

class MetricsFeed {
 public:
  struct Options {
    EventLoop* loop = nullptr;
    EventLoop* worker = nullptr;  // another thread's, for reading many cgroups; ends before `store`
    Metrics* metrics = nullptr;
    const TaskStore* store = nullptr;
    std::string address;  // "127.0.0.1:9465"
    Fd program;           // the exporter, an executable memfd
  };
  static constexpr std::chrono::seconds kFirstDelay{1};
  static constexpr std::chrono::seconds kLongestDelay{60};
  // For the supervisors' answers before the figures are read; who takes longer shows his last
  // state.
  static constexpr std::chrono::milliseconds kRefreshTime{100};

  explicit MetricsFeed(Options options)
      : options_(std::move(options)), meter_(std::make_shared<TaskMeter>(options_.metrics)) {}
  ~MetricsFeed();
  MetricsFeed(const MetricsFeed&) = delete;
  MetricsFeed& operator=(const MetricsFeed&) = delete;

  void Launch();

 private:
  absl::Status TryToLaunch();
  void OnPacket();
  void OnNews(const pb::ListenerNews& news);
  void Answer(uint64_t scrape);
  void OnEnd();
  void Stop();
  void RetryAfter(const std::string& reason);
  std::string LastWords() const;

  const Options options_;
  std::shared_ptr<Fd> socket_;  // a worker may still answer with it when the listener is gone
  std::shared_ptr<std::atomic<bool>> busy_ = std::make_shared<std::atomic<bool>>(false);
  // Of the worker's thread, while busy_.
  const std::shared_ptr<TaskMeter> meter_;
  Fd stderr_;  // a memfd: what the dynamic linker says
  Subprocess process_;
  std::string error_;  // its own word for why it ended
  std::string told_;   // the last reason in the log
  std::chrono::seconds delay_ = kFirstDelay;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace jenkins_agent
