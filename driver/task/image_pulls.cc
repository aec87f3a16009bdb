#include "driver/task/image_pulls.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using nlohmann::json;

constexpr char kWorker[] = "image-pull";

// Held in memory only: the job's line has the login in it.
std::string KeyOf(const ImageJob& job) { return Digest::Of(ImageJobLine(job)).hex(); }

void CountPull(const absl::StatusOr<PullResult>& outcome, ImagePulls::Clock::duration took,
               Metrics& metrics) {
  if (!outcome.ok()) return metrics.Count(Metric::kImagePulls, "failed");
  if (outcome->cached) return metrics.Count(Metric::kImagePulls, "unchanged");
  metrics.Count(Metric::kImagePulls, "pulled");
  metrics.Count(Metric::kImagePulledBytes, "", static_cast<double>(outcome->progress.done_bytes));
  metrics.Observe(Metric::kImagePull, "", std::chrono::duration<double>(took).count());
}

}  // namespace

// The workers end on the loop's thread, or with the loop.
ImagePulls::~ImagePulls() {
  MutexLock lock(mutex_);
  loop_->Post([running = std::move(running_)]() mutable { running.clear(); });
}

void ImagePulls::StartSoon(const RunningPtr& pull) {
  loop_->Post([weak = weak_from_this(), pull] {
    if (const auto self = weak.lock()) self->StartWorker(pull);
  });
}

ImagePulls::RunningPtr ImagePulls::Join(const ImageJob& job) {
  RunningPtr& pull = running_[KeyOf(job)];
  if (pull == nullptr) {
    pull = std::make_shared<Running>();
    pull->job = job;
    StartSoon(pull);
  }
  ++pull->waiters;
  return pull;
}

// By identity: a newer pull of the same key is not meant. One that waited for this one begins.
void ImagePulls::Forget(const RunningPtr& pull) {
  std::erase_if(running_, [&](const auto& element) { return element.second == pull; });
  for (const auto& [key, next] : running_) {
    if (next->begun.has_value() || next->job.image != pull->job.image) continue;
    return StartSoon(next);
  }
}

void ImagePulls::Leave(const RunningPtr& pull) {
  if (--pull->waiters > 0 || pull->outcome.has_value()) return;
  metrics_->Count(Metric::kImagePulls, "given_up");
  loop_->Post([pull] { pull->worker.reset(); });
  Forget(pull);
}

absl::StatusOr<PullResult> ImagePulls::Pull(const ImageJob& job, const Waiter& waiter) {
  Clock::time_point next_progress = Clock::now() + progress_interval_;
  MutexLock lock(mutex_);
  const RunningPtr pull = Join(job);
  waiting_.insert(waiter.id);
  absl::Status ended;
  while (ended.ok() && !pull->outcome.has_value()) {
    if (given_up_.contains(waiter.id)) {
      ended = absl::CancelledError("the task was stopped while its image was being pulled");
    } else if (Clock::now() >= waiter.until) {
      ended = absl::DeadlineExceededError(
          absl::StrCat("not here in time: ", pull->progress.done_bytes >> 20, " of ",
                       pull->progress.bytes >> 20, " MiB fetched"));
    } else if (Clock::now() >= next_progress) {
      next_progress += progress_interval_;
      const PullProgress progress = pull->progress;
      mutex_.Unlock();
      waiter.on_progress(progress);
      mutex_.Lock();
    } else {
      changed_.WaitUntil(mutex_, std::min(waiter.until, next_progress));
    }
  }
  waiting_.erase(waiter.id);
  given_up_.erase(waiter.id);
  Leave(pull);
  if (!ended.ok()) return ended;
  return *pull->outcome;
}

void ImagePulls::PullInBackground(const ImageJob& job, Done done) {
  MutexLock lock(mutex_);
  Join(job)->done.push_back(std::move(done));
}

void ImagePulls::GiveUp(const std::string& waiter_id) {
  MutexLock lock(mutex_);
  if (waiting_.contains(waiter_id)) given_up_.insert(waiter_id);
  changed_.NotifyAll();
}

// Whether it is this pull's turn, once: another one of the same image, with another login, goes
// first.
bool ImagePulls::Begin(Running& pull) {
  MutexLock lock(mutex_);
  if (pull.waiters == 0 || pull.begun.has_value()) return false;  // gave up, or was told twice
  for (const auto& [key, other] : running_) {
    if (other->begun.has_value() && other->job.image == pull.job.image) return false;
  }
  pull.begun = Clock::now();
  return true;
}

void ImagePulls::StartWorker(const RunningPtr& pull) {
  if (!Begin(*pull)) return;
  ToolsWorker::Handlers handlers;
  // The pull owns its worker.
  const auto weak = weak_from_this();
  const auto weak_pull = std::weak_ptr<Running>(pull);
  handlers.on_line = [weak, weak_pull](const json& line) {
    const auto self = weak.lock();
    const RunningPtr running = weak_pull.lock();
    return self == nullptr || running == nullptr || self->OnLine(running, line);
  };
  handlers.on_failed = [weak, weak_pull](const std::string& error) {
    const auto self = weak.lock();
    const RunningPtr running = weak_pull.lock();
    if (self != nullptr && running != nullptr) self->Finish(running, absl::UnavailableError(error));
  };
  absl::StatusOr<std::unique_ptr<ToolsWorker>> worker = ToolsWorker::Start(
      loop_, *tools_, kWorker, json::parse(ImageJobLine(pull->job)), std::move(handlers));
  if (!worker.ok()) return Finish(pull, worker.status());
  pull->worker = *std::move(worker);
}

bool ImagePulls::OnLine(const RunningPtr& pull, const json& line) {
  const absl::StatusOr<ImageReport> report = ParseImageReport(line.dump());
  if (!report.ok()) {
    Finish(pull, report.status());
    return true;
  }
  if (report->finished) {
    if (report->status.ok()) {
      Finish(pull, report->result);
    } else {
      Finish(pull, report->status);
    }
    return true;
  }
  MutexLock lock(mutex_);
  pull->progress = report->result.progress;
  return false;
}

void ImagePulls::Finish(const RunningPtr& pull, const absl::StatusOr<PullResult>& outcome) {
  std::vector<Done> done;
  {
    MutexLock lock(mutex_);
    if (pull->outcome.has_value()) return;
    pull->outcome = outcome;
    CountPull(outcome, Clock::now() - *pull->begun, *metrics_);
    done.swap(pull->done);
    Forget(pull);
    changed_.NotifyAll();
  }
  pull->worker.reset();
  for (const Done& tell : done) tell(outcome);
}

}  // namespace jenkins_agent
