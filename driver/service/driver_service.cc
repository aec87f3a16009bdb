#include "driver/service/driver_service.h"

#include <fcntl.h>
#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "driver/agent/phases.h"
#include "driver/base/clock.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/config/hclspec.h"
#include "driver/config/task_config.h"
#include "driver/service/exec_stream.h"
#include "driver/service/status_map.h"
#include "driver/service/streams.h"
#include "driver/task/signals.h"
#include "driver/task/start_phases.h"

namespace jenkins_agent {
namespace {

// time.Time{} of Go, 0001-01-01 UTC: "never".
constexpr int64_t kGoZeroTime = -62135596800;

// Times from a year on mean "for ever" and do not overflow a clock of nanoseconds.
constexpr int64_t kMaxSeconds = int64_t{365} * 24 * 3600;

std::chrono::milliseconds ToMilliseconds(const google::protobuf::Duration& duration) {
  return std::chrono::seconds(std::clamp<int64_t>(duration.seconds(), 0, kMaxSeconds)) +
         std::chrono::milliseconds(duration.nanos() / 1'000'000);
}

void SetTime(int64_t ns, google::protobuf::Timestamp* timestamp) {
  timestamp->set_seconds(ns / 1'000'000'000);
  timestamp->set_nanos(static_cast<int32_t>(ns % 1'000'000'000));
}

void SetResult(const pb::ExitRecord& exit, nomad::ExitResult* result) {
  result->set_exit_code(exit.exit_code());
  result->set_signal(exit.signal());
  result->set_oom_killed(exit.oom_killed());
}

const char* NameOf(pb::RunState state) {
  switch (state) {
    case pb::WAITING_FOR_JAR:
      return "waiting for agent.jar";
    case pb::RUNNING:
      return "running";
    case pb::BACKING_OFF:
      return "waiting to launch again";
    case pb::STOPPING:
      return "stopping";
    case pb::EXITED:
      return "exited";
    default:
      return "unknown";
  }
}

// For `InspectTask`: what a person asks first.
void SetAttributes(const pb::TaskStatus& status, nomad::TaskDriverStatus* driver) {
  auto& attributes = *driver->mutable_attributes();
  attributes["state"] = NameOf(status.state());
  attributes["supervisor_pid"] = absl::StrCat(status.supervisor_pid());
  attributes["init_pid"] = absl::StrCat(status.init_pid());
  attributes["pid"] = absl::StrCat(status.payload_pid());
  attributes["launches"] = absl::StrCat(status.launches());
  attributes["restarts"] = absl::StrCat(status.restarts());
  attributes["sandbox_ms"] = absl::StrFormat("%.1f", status.timings().sandbox_ms());
  attributes["launched_ms"] = absl::StrFormat("%.1f", status.timings().launched_ms());
  for (auto& [name, ms] : StartDetails(PhasesOf(status.timings()))) attributes[name] = ms;
  if (status.phase() != pb::PHASE_NONE) attributes["phase"] = std::string(PhaseKey(status.phase()));
  if (!status.phase_detail().empty()) attributes["phase_detail"] = status.phase_detail();
  if (!status.java_home().empty()) attributes["java_home"] = status.java_home();
  if (status.timings().jar_ms() > 0) {
    attributes["jar_ms"] = absl::StrFormat("%.1f", status.timings().jar_ms());
  }
  if (status.timings().connected_ms() > 0) {
    attributes["connected_ms"] = absl::StrFormat("%.1f", status.timings().connected_ms());
  }
}

// Of an image's registry.
bool HoldsALogin(const nomad::TaskConfig& task) {
  const absl::StatusOr<TaskConfig> config = DecodeTaskConfig(task.msgpack_driver_config());
  return config.ok() && config->image.auth.present;
}

grpc::Status NotHere(absl::string_view what) {
  return grpc::Status(grpc::StatusCode::UNIMPLEMENTED,
                      absl::StrCat("jenkins-agent driver: ", what, " is not supported"));
}

// WaitTask of one caller: finished by the task's end or by the client's cancel, whoever is first.
class WaitReactor final : public grpc::ServerUnaryReactor {
 public:
  WaitReactor(std::shared_ptr<Task> task, nomad::WaitTaskResponse* response)
      : task_(std::move(task)), response_(response), shared_(std::make_shared<Shared>()) {
    const std::shared_ptr<Shared> shared = shared_;
    shared->reactor = this;
    const uint64_t id = task_->Wait([shared](const pb::ExitRecord& exit) {
      MutexLock lock(shared->mutex);
      if (shared->reactor != nullptr) std::exchange(shared->reactor, nullptr)->FinishWith(exit);
    });
    MutexLock lock(shared->mutex);
    shared->waiter = id;
  }

  void OnCancel() override {
    uint64_t waiter = 0;
    {
      MutexLock lock(shared_->mutex);
      if (std::exchange(shared_->reactor, nullptr) == nullptr) return;
      waiter = shared_->waiter;
    }
    task_->StopWaiting(waiter);
    Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the wait was cancelled"));
  }
  void OnDone() override { delete this; }

 private:
  // Outlives the reactor while the task still holds the waiter.
  struct Shared {
    Mutex mutex;
    WaitReactor* reactor ABSL_GUARDED_BY(mutex) = nullptr;  // null: finished
    uint64_t waiter ABSL_GUARDED_BY(mutex) = 0;
  };

  void FinishWith(const pb::ExitRecord& exit) {
    SetResult(exit, response_->mutable_result());
    response_->set_err(exit.message());
    Finish(grpc::Status::OK);
  }

  const std::shared_ptr<Task> task_;
  nomad::WaitTaskResponse* const response_;
  const std::shared_ptr<Shared> shared_;
};

class FailedUnary final : public grpc::ServerUnaryReactor {
 public:
  explicit FailedUnary(grpc::Status status) { Finish(std::move(status)); }
  void OnDone() override { delete this; }
};

absl::StatusOr<std::string> Start(Runtime& runtime, const nomad::TaskConfig& task,
                                  int64_t received_ns) {
  ASSIGN_OR_RETURN(TaskStore* const store, runtime.Store());
  return store->Start(task, received_ns);
}

// Nomad waits 2 s for the end of each FIFO that nobody has opened (nomad-agent.md 4.3).
void ReleaseLogReaders(const nomad::TaskConfig& task) {
  for (const std::string& path : {task.stdout_path(), task.stderr_path()}) {
    OpenFile(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW).IgnoreError();
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<Task>> DriverService::FindTask(const std::string& task_id) {
  ASSIGN_OR_RETURN(const TaskStore* store, runtime_->Store());
  return store->Find(task_id);
}

grpc::Status DriverService::Init(grpc::ServerContext*, const nomad::InitRequest*,
                                 nomad::InitResponse*) {
  return grpc::Status::OK;
}

grpc::Status DriverService::TaskConfigSchema(grpc::ServerContext*,
                                             const nomad::TaskConfigSchemaRequest*,
                                             nomad::TaskConfigSchemaResponse* response) {
  *response->mutable_spec() = TaskConfigSpec();
  return grpc::Status::OK;
}

grpc::Status DriverService::Capabilities(grpc::ServerContext*, const nomad::CapabilitiesRequest*,
                                         nomad::CapabilitiesResponse* response) {
  nomad::DriverCapabilities& capabilities = *response->mutable_capabilities();
  capabilities.set_send_signals(true);
  capabilities.set_exec(true);
  // The driver supplies the root file system: Nomad builds no chroot and keeps the agent's own
  // environment out of the task.
  capabilities.set_fs_isolation(nomad::DriverCapabilities::IMAGE);
  capabilities.add_network_isolation_modes(nomad::NetworkIsolationSpec::HOST);
  capabilities.add_network_isolation_modes(nomad::NetworkIsolationSpec::GROUP);
  capabilities.set_mount_configs(nomad::DriverCapabilities::ANY_MOUNTS);
  capabilities.set_dynamic_workload_users(true);
  // Nomad asks when it sets a task up, after SetConfig, and starts no log helper then.
  capabilities.set_disable_log_collection(runtime_->config().log_collection ==
                                          kLogCollectionDriver);
  return grpc::Status::OK;
}

grpc::ServerWriteReactor<nomad::FingerprintResponse>* DriverService::Fingerprint(
    grpc::CallbackServerContext*, const nomad::FingerprintRequest*) {
  return NewFingerprintStream(runtime_);
}

grpc::Status DriverService::RecoverTask(grpc::ServerContext*,
                                        const nomad::RecoverTaskRequest* request,
                                        nomad::RecoverTaskResponse*) {
  const absl::StatusOr<TaskStore*> store = runtime_->Store();
  if (!store.ok()) return ToGrpc(store.status());
  return ToGrpc(
      (*store)->Recover(request->handle().config().id(), request->handle().driver_state()));
}

grpc::Status DriverService::StartTask(grpc::ServerContext*, const nomad::StartTaskRequest* request,
                                      nomad::StartTaskResponse* response) {
  const int64_t received_ns = MonotonicNs();
  absl::StatusOr<std::string> driver_state = Start(*runtime_, request->task(), received_ns);
  if (!driver_state.ok()) {
    ReleaseLogReaders(request->task());
    return ToGrpc(driver_state.status());
  }
  nomad::TaskHandle& handle = *response->mutable_handle();
  handle.set_version(1);
  handle.set_state(nomad::RUNNING);
  handle.set_driver_state(*std::move(driver_state));
  *handle.mutable_config() = request->task();
  // Nomad stores the handle: neither the environment nor its part from devices belongs on its disk.
  handle.mutable_config()->clear_env();
  handle.mutable_config()->clear_device_env();
  if (HoldsALogin(request->task())) handle.mutable_config()->clear_msgpack_driver_config();
  return grpc::Status::OK;
}

grpc::ServerUnaryReactor* DriverService::WaitTask(grpc::CallbackServerContext*,
                                                  const nomad::WaitTaskRequest* request,
                                                  nomad::WaitTaskResponse* response) {
  absl::StatusOr<std::shared_ptr<Task>> task = FindTask(request->task_id());
  if (!task.ok()) return new FailedUnary(ToGrpc(task.status()));
  return new WaitReactor(*std::move(task), response);
}

grpc::Status DriverService::StopTask(grpc::ServerContext*, const nomad::StopTaskRequest* request,
                                     nomad::StopTaskResponse*) {
  int signal = SIGTERM;
  if (!request->signal().empty()) {
    const absl::StatusOr<int> parsed = ParseSignal(request->signal());
    if (!parsed.ok()) return ToGrpc(Annotate(parsed.status(), "kill_signal"));
    signal = *parsed;
  }
  if (const auto store = runtime_->Store(); store.ok()) (*store)->GiveUpImage(request->task_id());
  const absl::StatusOr<std::shared_ptr<Task>> task = FindTask(request->task_id());
  if (absl::IsNotFound(task.status())) return grpc::Status::OK;  // Nomad expects it (5.1)
  if (!task.ok()) return ToGrpc(task.status());
  return ToGrpc((*task)->Stop(signal, ToMilliseconds(request->timeout())));
}

grpc::Status DriverService::DestroyTask(grpc::ServerContext*,
                                        const nomad::DestroyTaskRequest* request,
                                        nomad::DestroyTaskResponse*) {
  const absl::StatusOr<TaskStore*> store = runtime_->Store();
  if (!store.ok()) return ToGrpc(store.status());
  (*store)->GiveUpImage(request->task_id());
  return ToGrpc((*store)->Destroy(request->task_id(), request->force()));
}

grpc::Status DriverService::InspectTask(grpc::ServerContext*,
                                        const nomad::InspectTaskRequest* request,
                                        nomad::InspectTaskResponse* response) {
  const absl::StatusOr<std::shared_ptr<Task>> task = FindTask(request->task_id());
  if (!task.ok()) return ToGrpc(task.status());
  const absl::StatusOr<pb::TaskStatus> status = (*task)->Status();
  if (!status.ok()) return ToGrpc(status.status());
  nomad::TaskStatus& answer = *response->mutable_task();
  answer.set_id(request->task_id());
  answer.set_name((*task)->record().task_name());
  SetTime((*task)->record().started_at_ns(), answer.mutable_started_at());
  // Nomad's client code dereferences the result unchecked and refuses an absent time.
  answer.mutable_result();
  answer.mutable_completed_at()->set_seconds(kGoZeroTime);
  answer.set_state(nomad::RUNNING);
  if (const std::optional<pb::ExitRecord> exit = (*task)->exit_record(); exit.has_value()) {
    answer.set_state(nomad::EXITED);
    SetTime(exit->finished_at_ns(), answer.mutable_completed_at());
    SetResult(*exit, answer.mutable_result());
  }
  SetAttributes(*status, response->mutable_driver());
  if (const std::string& image = (*task)->record().image(); !image.empty()) {
    (*response->mutable_driver()->mutable_attributes())["image"] = image;
  }
  return grpc::Status::OK;
}

grpc::ServerWriteReactor<nomad::TaskStatsResponse>* DriverService::TaskStats(
    grpc::CallbackServerContext*, const nomad::TaskStatsRequest* request) {
  absl::StatusOr<std::shared_ptr<Task>> task = FindTask(request->task_id());
  if (!task.ok()) return new FailedStream<nomad::TaskStatsResponse>(ToGrpc(task.status()));
  const absl::StatusOr<EventLoop*> loop = runtime_->Loop();
  if (!loop.ok()) return new FailedStream<nomad::TaskStatsResponse>(ToGrpc(loop.status()));
  return NewTaskStatsStream(runtime_, *loop, *task, ToMilliseconds(request->collection_interval()));
}

grpc::ServerWriteReactor<nomad::DriverTaskEvent>* DriverService::TaskEvents(
    grpc::CallbackServerContext*, const nomad::TaskEventsRequest*) {
  return NewTaskEventStream(runtime_);
}

// The tasks stay: their supervisors need no plugin.
grpc::Status DriverService::Shutdown(grpc::ServerContext*, const nomad::ShutdownRequest*,
                                     nomad::ShutdownResponse*) {
  return grpc::Status::OK;
}

grpc::Status DriverService::SignalTask(grpc::ServerContext*,
                                       const nomad::SignalTaskRequest* request,
                                       nomad::SignalTaskResponse*) {
  const absl::StatusOr<int> signal = ParseSignal(request->signal());
  if (!signal.ok()) return ToGrpc(signal.status());
  const absl::StatusOr<std::shared_ptr<Task>> task = FindTask(request->task_id());
  if (!task.ok()) return ToGrpc(task.status());
  return ToGrpc((*task)->Signal(*signal));
}

grpc::ServerUnaryReactor* DriverService::ExecTask(grpc::CallbackServerContext*,
                                                  const nomad::ExecTaskRequest* request,
                                                  nomad::ExecTaskResponse* response) {
  return NewExecCall(runtime_, *request, response);
}

grpc::ServerBidiReactor<nomad::ExecTaskStreamingRequest, nomad::ExecTaskStreamingResponse>*
DriverService::ExecTaskStreaming(grpc::CallbackServerContext*) {
  return NewExecStream(runtime_);
}

grpc::Status DriverService::CreateNetwork(grpc::ServerContext*, const nomad::CreateNetworkRequest*,
                                          nomad::CreateNetworkResponse*) {
  return NotHere("making networks (Nomad does, for modes bridge, cni and none)");
}

grpc::Status DriverService::DestroyNetwork(grpc::ServerContext*,
                                           const nomad::DestroyNetworkRequest*,
                                           nomad::DestroyNetworkResponse*) {
  return NotHere("making networks (Nomad does, for modes bridge, cni and none)");
}

}  // namespace jenkins_agent
