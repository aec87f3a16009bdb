// Pulls of images by workers (`tools image-pull`), one for all that want the same image with the
// same login and registry settings at the same time. Another login is another pull, after the one
// that runs: it finds the layers here and succeeds or fails alone, by what the registry says to it.
//
// Thread-safe. Owned through a shared_ptr, for callbacks of the loop, which ends the pulls that
// still run when their owner goes; must outlive whoever waits. A waiter blocks its own thread,
// never the loop's.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/mutex.h"
#include "driver/image/image_job.h"
#include "driver/metrics/metrics.h"
#include "driver/task/tools_worker.h"

namespace jenkins_agent {

class ImagePulls : public std::enable_shared_from_this<ImagePulls> {
 public:
  using Clock = std::chrono::steady_clock;
  using Progress = std::function<void(const PullProgress&)>;
  using Done = std::function<void(const absl::StatusOr<PullResult>&)>;
  // Nomad keeps ten events of a task.
  static constexpr std::chrono::milliseconds kProgressInterval{30'000};

  // All borrowed. `progress_interval`: for tests.
  ImagePulls(EventLoop* loop, const JarWorkerProgram* tools, Metrics* metrics,
             std::chrono::milliseconds progress_interval = kProgressInterval)
      : loop_(loop), tools_(tools), metrics_(metrics), progress_interval_(progress_interval) {}
  ~ImagePulls();

  struct Waiter {
    std::string id;           // for GiveUp
    Clock::time_point until;  // DeadlineExceeded
    Progress on_progress;     // on the waiter's thread, in each interval
  };
  // Joins the running pull or starts one; it ends with its last waiter. Errors are the worker's.
  absl::StatusOr<PullResult> Pull(const ImageJob& job, const Waiter& waiter)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Nobody waits: `done` is called on the loop's thread.
  void PullInBackground(const ImageJob& job, Done done) ABSL_LOCKS_EXCLUDED(mutex_);
  // The waiter of this id, if there is one, gets Cancelled.
  void GiveUp(const std::string& waiter_id) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Running {
    ImageJob job;
    int waiters = 0;
    std::optional<Clock::time_point> begun;
    std::vector<Done> done;
    PullProgress progress;
    std::optional<absl::StatusOr<PullResult>> outcome;
    std::unique_ptr<ToolsWorker> worker;  // loop's thread only
  };
  using RunningPtr = std::shared_ptr<Running>;

  RunningPtr Join(const ImageJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Leave(const RunningPtr& pull) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const RunningPtr& pull) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Begin(Running& pull) ABSL_LOCKS_EXCLUDED(mutex_);
  void StartSoon(const RunningPtr& pull);
  // On the loop's thread.
  void StartWorker(const RunningPtr& pull);
  bool OnLine(const RunningPtr& pull, const nlohmann::json& line);
  void Finish(const RunningPtr& pull, const absl::StatusOr<PullResult>& outcome)
      ABSL_LOCKS_EXCLUDED(mutex_);

  EventLoop* const loop_;
  const JarWorkerProgram* const tools_;
  Metrics* const metrics_;
  const std::chrono::milliseconds progress_interval_;

  Mutex mutex_;
  CondVar changed_;
  std::map<std::string, RunningPtr> running_ ABSL_GUARDED_BY(mutex_);  // by digest of the job
  std::set<std::string> waiting_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> given_up_ ABSL_GUARDED_BY(mutex_);  // of waiting_
};

}  // namespace jenkins_agent
