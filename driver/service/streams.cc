#include "driver/service/streams.h"

#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "driver/image/store_watch.h"
#include "driver/service/fingerprint.h"
#include "driver/task/stats.h"
#include "driver/task/task_images.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;

// A server stream that others push into, from any thread, also after its end. A client that does
// not read costs kMaxQueued messages; then the oldest go.
template <typename Response>
class PushStream final : public grpc::ServerWriteReactor<Response> {
 public:
  // The part that pushers hold; it outlives the stream.
  class Inlet {
   public:
    explicit Inlet(PushStream* stream) : stream_(stream) {}

    void Push(Response response) ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      if (stream_ == nullptr) return;
      if (queue_.size() == kMaxQueued) queue_.pop_front();
      queue_.push_back(std::move(response));
      WriteNext();
    }
    bool open() const ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      return stream_ != nullptr;
    }
    void Close(grpc::Status status) ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      if (PushStream* stream = std::exchange(stream_, nullptr)) stream->Finish(std::move(status));
    }
    void OnWriteDone() ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      writing_.reset();
      WriteNext();
    }

   private:
    void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (stream_ == nullptr || writing_.has_value() || queue_.empty()) return;
      writing_ = std::move(queue_.front());
      queue_.pop_front();
      stream_->StartWrite(&*writing_);
    }

    mutable Mutex mutex_;
    PushStream* stream_ ABSL_GUARDED_BY(mutex_);  // null: finished
    std::deque<Response> queue_ ABSL_GUARDED_BY(mutex_);
    std::optional<Response> writing_ ABSL_GUARDED_BY(mutex_);
  };

  static constexpr size_t kMaxQueued = 256;

  PushStream() : inlet_(std::make_shared<Inlet>(this)) {}
  const std::shared_ptr<Inlet>& inlet() const { return inlet_; }
  // Called once when the stream is over, before it goes away.
  void SetAtEnd(std::function<void()> at_end) { at_end_ = std::move(at_end); }

  void OnWriteDone(bool ok) override {
    if (ok) inlet_->OnWriteDone();
    // Not ok: the client is gone, OnCancel follows.
  }
  void OnCancel() override {
    inlet_->Close(grpc::Status(grpc::StatusCode::CANCELLED, "the stream was cancelled"));
  }
  void OnDone() override {
    if (at_end_) at_end_();
    delete this;
  }

 private:
  const std::shared_ptr<Inlet> inlet_;
  std::function<void()> at_end_;
};

using FingerprintInlet = std::shared_ptr<PushStream<nomad::FingerprintResponse>::Inlet>;

// Records of a store come in numbers.
constexpr std::chrono::milliseconds kImagesDelay{200};

struct FingerprintWatch {
  Runtime* runtime;
  EventLoop* worker;
  std::chrono::milliseconds period;
  FingerprintInlet inlet;
  HostFacts facts = {};  // as they were seen last
  // Once the tools program starts it goes on doing so: the plugin holds it in memory.
  absl::Status tools = absl::UnknownError("not looked at yet");
  FingerprintPace pace = {};
  bool told = false;
  std::unique_ptr<StoreWatch> images = nullptr;
  bool images_due = false;
};

std::string StoreDir(const PluginConfig& config) {
  return ImagesDir(config.images, StatePaths(config.state_dir));
}

void Tell(FingerprintWatch& watch, std::optional<nomad::FingerprintResponse> news) {
  if (!news.has_value()) return;
  if (std::exchange(watch.told, true)) watch.runtime->metrics().Count(Metric::kFingerprintChanges);
  watch.inlet->Push(*std::move(news));
}

void LookAtImages(const std::shared_ptr<FingerprintWatch>& watch) {
  watch->images_due = false;
  if (!watch->inlet->open()) return;
  const PluginConfig config = watch->runtime->config();
  watch->facts.images = KeptImages(config.images, StoreDir(config));
  Tell(*watch, watch->pace.NextImages(Fingerprint(watch->facts, config)));
}

// Without it, as while there is no store, images are seen at the next look at the host.
void WatchImages(const std::shared_ptr<FingerprintWatch>& watch, const std::string& dir) {
  if (watch->images != nullptr && watch->images->alive()) return;
  watch->images.reset();
  const auto on_change = [weak = std::weak_ptr<FingerprintWatch>(watch)] {
    const auto self = weak.lock();
    if (self == nullptr || std::exchange(self->images_due, true)) return;
    self->worker->After(kImagesDelay, [self] { LookAtImages(self); });
  };
  auto started = StoreWatch::Start(watch->worker, dir, on_change);
  if (started.ok()) watch->images = *std::move(started);
}

// Runs on the worker and comes back every `period` while the stream is open.
void LookAtHost(const std::shared_ptr<FingerprintWatch>& watch) {
  if (!watch->inlet->open()) return;
  if (!watch->tools.ok()) watch->tools = watch->runtime->CheckTools();
  const PluginConfig config = watch->runtime->config();
  const std::string state_trouble = watch->runtime->StateTrouble();
  WatchImages(watch, StoreDir(config));
  watch->facts = ReadHostFacts(config);
  if (watch->facts.state_dir_error.empty()) watch->facts.state_dir_error = state_trouble;
  watch->facts.images = KeptImages(config.images, StoreDir(config));
  watch->facts.tools = watch->tools;
  Tell(*watch, watch->pace.Next(Fingerprint(watch->facts, config)));
  watch->worker->After(watch->period, [watch] { LookAtHost(watch); });
}

nomad::DriverTaskEvent ToProto(const TaskEvent& event) {
  nomad::DriverTaskEvent message;
  message.set_task_id(event.task_id);
  message.set_alloc_id(event.alloc_id);
  message.set_task_name(event.task_name);
  message.set_message(event.message);
  message.mutable_timestamp()->set_seconds(event.time_ns / 1'000'000'000);
  message.mutable_timestamp()->set_nanos(static_cast<int32_t>(event.time_ns % 1'000'000'000));
  for (const auto& [key, value] : event.details) (*message.mutable_annotations())[key] = value;
  return message;
}

using StatsInlet = std::shared_ptr<PushStream<nomad::TaskStatsResponse>::Inlet>;

struct StatsWatch {
  EventLoop* loop;
  std::chrono::milliseconds interval;
  StatsInlet inlet;
  TaskSampler sampler;
  EventLoop::TimerId timer = 0;
};

void SendStats(const std::shared_ptr<StatsWatch>& watch) {
  if (!watch->inlet->open()) return;
  if (absl::StatusOr<nomad::TaskStats> stats = watch->sampler.Sample(); stats.ok()) {
    nomad::TaskStatsResponse response;
    *response.mutable_stats() = *std::move(stats);
    watch->inlet->Push(std::move(response));
  }
  watch->timer = watch->loop->After(watch->interval, [watch] { SendStats(watch); });
}

}  // namespace

grpc::ServerWriteReactor<nomad::FingerprintResponse>* NewFingerprintStream(
    Runtime* runtime, std::chrono::milliseconds period) {
  const absl::StatusOr<EventLoop*> worker = runtime->Worker();
  if (!worker.ok()) {
    return new FailedStream<nomad::FingerprintResponse>(
        grpc::Status(grpc::StatusCode::INTERNAL, std::string(worker.status().message())));
  }
  auto* stream = new PushStream<nomad::FingerprintResponse>();
  auto watch = std::make_shared<FingerprintWatch>(
      FingerprintWatch{runtime, *worker, period, stream->inlet()});
  // Given away: its watch of the images ends on the worker's thread.
  (*worker)->Post([watch = std::move(watch)] { LookAtHost(watch); });
  return stream;
}

grpc::ServerWriteReactor<nomad::DriverTaskEvent>* NewTaskEventStream(Runtime* runtime) {
  auto* stream = new PushStream<nomad::DriverTaskEvent>();
  const uint64_t id = runtime->events().Subscribe(
      [inlet = stream->inlet()](const TaskEvent& event) { inlet->Push(ToProto(event)); });
  stream->SetAtEnd([runtime, id] { runtime->events().Unsubscribe(id); });
  return stream;
}

grpc::ServerWriteReactor<nomad::TaskStatsResponse>* NewTaskStatsStream(
    Runtime* runtime, EventLoop* loop, const std::shared_ptr<Task>& task,
    std::chrono::milliseconds interval) {
  const Runtime::Compute compute = runtime->compute();
  const double mhz_per_core =
      compute.cores == 0 ? 0 : static_cast<double>(compute.total_mhz) / compute.cores;
  auto* stream = new PushStream<nomad::TaskStatsResponse>();
  auto watch = std::make_shared<StatsWatch>(StatsWatch{loop, std::max(interval, kMinStatsInterval),
                                                       stream->inlet(),
                                                       TaskSampler(task->record(), mhz_per_core)});
  // The task's end is the stream's, whatever the interval.
  const uint64_t waiter = task->Wait(
      [inlet = stream->inlet()](const pb::ExitRecord&) { inlet->Close(grpc::Status::OK); });
  stream->SetAtEnd([task, waiter, watch] {
    task->StopWaiting(waiter);
    watch->loop->Post([watch] { watch->loop->Cancel(watch->timer); });
  });
  loop->Post([watch] { SendStats(watch); });
  return stream;
}

}  // namespace jenkins_agent
