#include "tests/bench/fleet.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/supervisor/client.h"
#include "tests/config/msgpack_bytes.h"
#include "tests/support/command_config.h"

namespace jenkins_agent::bench {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;
namespace base_proto = hashicorp::nomad::plugins::base::proto;

constexpr char kTaskName[] = "agent";
constexpr char kOneByOne[] = "start";  // allocation of the tasks that do not rest
constexpr char kLocal[] = "/agent/local/";
constexpr char kProbe[] = "/agent/local/probe";
constexpr char kProbeInside[] = "/local/probe";
constexpr int kOutputTimeoutMs = 30'000;
constexpr std::chrono::seconds kCallLimit(120);
constexpr std::chrono::seconds kStopTimeout(3);
constexpr int64_t kMemoryMb = 64;
constexpr int64_t kCpuShares = 200;

absl::Status FromGrpc(const grpc::Status& status, absl::string_view call) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat(call, ": ", status.error_message()));
}

// fixmap, fixstr and str8 of msgpack.
std::string PluginConfigBytes(const std::string& state_dir, bool own_logs) {
  const auto text = [](const std::string& s) {
    return absl::StrCat(std::string(1, '\xd9'), std::string(1, static_cast<char>(s.size())), s);
  };
  std::string bytes = absl::StrCat(own_logs ? "\x82" : "\x81", text("state_dir"), text(state_dir));
  if (own_logs) absl::StrAppend(&bytes, text("log_collection"), text("driver"));
  return bytes;
}

class Deadline : public grpc::ClientContext {
 public:
  Deadline() { set_deadline(std::chrono::system_clock::now() + kCallLimit); }
};

// A call whose answer comes from a completion queue, with this object as its tag.
template <typename Response>
struct Pending {
  grpc::ClientContext context;
  Response response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader;

  void AskForAnswer() { reader->Finish(&response, &status, this); }
};

}  // namespace

namespace {

absl::Status ReadOutput(int fd, char* bytes, size_t wanted) {
  for (size_t done = 0; done < wanted;) {
    pollfd wait = {fd, POLLIN, 0};
    if (::poll(&wait, 1, kOutputTimeoutMs) <= 0) {
      return absl::DeadlineExceededError("the program wrote nothing");
    }
    const ssize_t size = ::read(fd, bytes + done, wanted - done);
    if (size < 0 && errno == EAGAIN) continue;
    if (size <= 0) return absl::InternalError("the program ended without a word");
    done += static_cast<size_t>(size);
  }
  return absl::OkStatus();
}

}  // namespace

std::string BaseNameOf(const Program& program) {
  return std::filesystem::path(program.file).filename().string();
}

absl::StatusOr<double> ReadStamp(int fd) {
  timespec stamp = {};
  RETURN_IF_ERROR(ReadOutput(fd, reinterpret_cast<char*>(&stamp), sizeof(stamp)));
  return static_cast<double>(stamp.tv_sec) * 1e3 + static_cast<double>(stamp.tv_nsec) / 1e6;
}

struct Fleet::Waits {
  grpc::CompletionQueue answers;
  std::vector<std::unique_ptr<Pending<nomad::WaitTaskResponse>>> calls;
};

Fleet::Fleet(const std::string& dir, Options options)
    : dir_(dir),
      options_(std::move(options)),
      state_dir_(dir + "/state"),
      mark_(absl::StrCat("bench-", ::getpid())) {}

absl::StatusOr<std::unique_ptr<Fleet>> Fleet::Launch(const std::string& dir, Options options) {
  std::unique_ptr<Fleet> fleet(new Fleet(dir, std::move(options)));
  RETURN_IF_ERROR(fleet->Open());
  RETURN_IF_ERROR(fleet->LaunchPlugin());
  return fleet;
}

absl::Status Fleet::Open() {
  if (::chmod(dir_.c_str(), 0711) != 0) return ErrnoStatus(dir_);
  RETURN_IF_ERROR(MakeAllocation(kOneByOne));
  const std::string fifo = dir_ + "/stdout";
  if (::mkfifo(fifo.c_str(), 0600) != 0) return ErrnoStatus(fifo);
  // For writing too: it must not end between two tasks.
  ASSIGN_OR_RETURN(output_, OpenFile(fifo, O_RDWR | O_NONBLOCK));
  return absl::OkStatus();
}

absl::Status Fleet::MakeAllocation(const std::string& name) const {
  const std::string alloc_dir = absl::StrCat(dir_, "/allocs/", name);
  for (const char* part : {"alloc/logs", "agent/local", "agent/secrets"}) {
    const std::string path = absl::StrCat(alloc_dir, "/", part);
    RETURN_IF_ERROR(MakeDirs(path));
    if (::chmod(path.c_str(), 0777) != 0) return ErrnoStatus(path);
  }
  std::error_code error;
  std::filesystem::copy_file(PROBE_FILE, absl::StrCat(alloc_dir, kProbe),
                             std::filesystem::copy_options::skip_existing, error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("copy of the probe: ", error.message()));
}

std::string Fleet::probe() const { return absl::StrCat(dir_, "/allocs/", kOneByOne, kProbe); }

absl::Status Fleet::LaunchPlugin() {
  ASSIGN_OR_RETURN(host_, PluginHost::Launch(options_.driver, {}));
  if (!host_->connected()) return absl::InternalError("the plugin's handshake did not come");
  base_proto::SetConfigRequest request;
  request.set_msgpack_config(PluginConfigBytes(state_dir_, options_.own_logs));
  request.mutable_nomad_config()->mutable_driver()->set_clientminport(14000);
  base_proto::SetConfigResponse response;
  Deadline context;
  return FromGrpc(host_->base().SetConfig(&context, request, &response), "SetConfig");
}

Fleet::~Fleet() {
  if (host_ == nullptr) return;
  DestroyAll().IgnoreError();  // whatever it was that failed has been reported
  (void)host_->Kill();
}

// ---- starts ----

absl::StatusOr<nomad::StartTaskRequest> Fleet::ProgramRequest(
    const Program& program, const std::string& stdout_path) const {
  const std::string name = BaseNameOf(program);
  RETURN_IF_ERROR(MakeAllocation(name));
  nomad::StartTaskRequest request = StartRequest(name, {}, stdout_path);
  nomad::TaskConfig& config = *request.mutable_task();
  std::error_code error;
  std::filesystem::copy_file(program.file, absl::StrCat(config.alloc_dir(), kLocal, name),
                             std::filesystem::copy_options::skip_existing, error);
  if (error) return absl::InternalError(absl::StrCat(program.file, ": ", error.message()));
  config.set_msgpack_driver_config(Map({{"command", Str("/local/" + name)},
                                        {"args", Strings(program.args)},
                                        {"pids_limit", Num(program.pids)}}));
  config.mutable_resources()->mutable_allocated_resources()->mutable_memory()->set_memory_mb(
      program.memory_mb);
  return request;
}

absl::StatusOr<Running> Fleet::StartProgram(const Program& program) {
  ASSIGN_OR_RETURN(const nomad::StartTaskRequest request, ProgramRequest(program, "/dev/null"));
  ASSIGN_OR_RETURN(const nomad::TaskHandle handle, Start(request));
  RETURN_IF_ERROR(Keep(handle));
  ASSIGN_OR_RETURN(const pb::TaskStatus status,
                   AskSupervisor(StatePaths(state_dir_).Task(request.task().id()), kCallLimit));
  return Running{request.task().alloc_dir() + kLocal,
                 {status.cgroup_dirs().begin(), status.cgroup_dirs().end()}};
}

absl::StatusOr<std::string> Fleet::RunProgram(const Program& program, size_t size) {
  ASSIGN_OR_RETURN(const nomad::StartTaskRequest request,
                   ProgramRequest(program, dir_ + "/stdout"));
  RETURN_IF_ERROR(Start(request).status());
  RETURN_IF_ERROR(Await(request.task().id()));
  std::string output(size, '\0');
  RETURN_IF_ERROR(ReadOutput(output_.get(), output.data(), size), BaseNameOf(program));
  RETURN_IF_ERROR(Destroy(request.task().id()));
  return output;
}

absl::Status Fleet::StartAgents(int count, const std::string& java_home, const std::string& jar,
                                bool watched) {
  for (int i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(nomad::StartTaskRequest request, NextResting());
    nomad::TaskConfig& config = *request.mutable_task();
    RETURN_IF_ERROR(WriteFileAtomic(config.alloc_dir() + "/agent/local/agent.jar", jar, 0644));
    (*config.mutable_env())["JENKINS_SECRET"] = "secret";
    config.set_msgpack_driver_config(Map({{"agent", Map({{"url", Str("http://127.0.0.1:1/")},
                                                         {"name", Str(absl::StrCat("bench-", i))},
                                                         {"jar", Str("/local/agent.jar")}})},
                                          {"health", Map({{"enabled", watched ? kTrue : kFalse}})},
                                          {"java_home", Str(java_home)}}));
    ASSIGN_OR_RETURN(const nomad::TaskHandle handle, Start(request), "agent ", i);
    RETURN_IF_ERROR(Keep(handle));
  }
  return absl::OkStatus();
}

absl::StatusOr<Fleet::Agents> Fleet::LookAtAgents() {
  Agents agents;
  for (auto& [id, task] : tasks_) {
    ASSIGN_OR_RETURN(task, Inspect(task.handle));
    agents.connected += task.connected ? 1 : 0;
    agents.restarts += task.restarts;
    agents.payloads.push_back(task.payload);
  }
  return agents;
}

nomad::StartTaskRequest Fleet::StartRequest(const std::string& name,
                                            const std::vector<std::string>& args,
                                            const std::string& stdout_path) const {
  const std::string alloc_dir = absl::StrCat(dir_, "/allocs/", name);
  nomad::StartTaskRequest request;
  nomad::TaskConfig& config = *request.mutable_task();
  config.set_id(absl::StrCat(mark_, "/", kTaskName, "/", name));
  config.set_alloc_id(absl::StrCat(mark_, "-", name));
  config.set_name(kTaskName);
  config.set_alloc_dir(alloc_dir);
  config.set_stdout_path(stdout_path);
  config.set_stderr_path(options_.own_logs ? stdout_path : "/dev/null");
  config.set_msgpack_driver_config(
      CommandConfig(options_.host_paths ? alloc_dir + kProbe : kProbeInside, args));
  nomad::Resources& resources = *config.mutable_resources();
  resources.mutable_allocated_resources()->mutable_memory()->set_memory_mb(kMemoryMb);
  resources.mutable_linux_resources()->set_cpu_shares(kCpuShares);
  return request;
}

// With own logs Nomad makes no FIFO, and its name says only that the job wants logs.
absl::StatusOr<nomad::StartTaskRequest> Fleet::NextResting() {
  const std::string name = absl::StrCat(next_id_++);
  RETURN_IF_ERROR(MakeAllocation(name));
  return StartRequest(name, {"rest"}, options_.own_logs ? dir_ + "/no-fifo" : "/dev/null");
}

absl::StatusOr<nomad::TaskHandle> Fleet::Start(const nomad::StartTaskRequest& request) {
  nomad::StartTaskResponse response;
  Deadline context;
  RETURN_IF_ERROR(FromGrpc(host_->driver().StartTask(&context, request, &response), "StartTask"));
  return response.handle();
}

// This thread's network namespace is the new one until the end; its path is good for everybody.
absl::StatusOr<Sample> Fleet::MeasureStart(bool own_network, const std::string& image) {
  const std::string own = absl::StrCat("/proc/", ::getpid(), "/task/", ::gettid(), "/ns/net");
  ASSIGN_OR_RETURN(const Fd home, OpenFile(own, O_RDONLY));
  const absl::Cleanup go_back = [&] {
    if (own_network) (void)::setns(home.get(), CLONE_NEWNET);
  };
  nomad::StartTaskRequest request = StartRequest(kOneByOne, {}, dir_ + "/stdout");
  if (!image.empty()) {
    request.mutable_task()->set_msgpack_driver_config(
        Map({{"command", Str(kProbeInside)}, {"image", Str(image)}}));
  }
  if (own_network) {
    auto& network = *request.mutable_task()->mutable_network_isolation_spec();
    network.set_mode(nomad::NetworkIsolationSpec::GROUP);
    network.set_path(own);
  }
  const double sent = NowMs();
  if (own_network && ::unshare(CLONE_NEWNET) != 0) return ErrnoStatus("unshare");
  RETURN_IF_ERROR(Start(request).status());
  Sample sample;
  sample.answered_ms = NowMs() - sent;
  RETURN_IF_ERROR(Await(request.task().id()));
  sample.reaped_ms = NowMs() - sent;
  ASSIGN_OR_RETURN(const double stamp, ReadStamp(output_.get()));
  sample.first_instruction_ms = stamp - sent;
  RETURN_IF_ERROR(Destroy(request.task().id()));
  return sample;
}

absl::StatusOr<pb::Timings> Fleet::MeasurePhases() {
  const nomad::StartTaskRequest request = StartRequest(kOneByOne, {"rest"}, "/dev/null");
  RETURN_IF_ERROR(Start(request).status());
  const std::string& id = request.task().id();
  const absl::StatusOr<pb::TaskStatus> status =
      AskSupervisor(StatePaths(state_dir_).Task(id), kCallLimit);
  RETURN_IF_ERROR(Destroy(id));
  if (!status.ok()) return status.status();
  return status->timings();
}

absl::Status Fleet::StartResting(int count) {
  for (int i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const nomad::StartTaskRequest request, NextResting());
    ASSIGN_OR_RETURN(const nomad::TaskHandle handle, Start(request), "task ", size());
    RETURN_IF_ERROR(Keep(handle));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> Fleet::StartTogether(int count) {
  std::vector<nomad::StartTaskRequest> requests(count);
  for (nomad::StartTaskRequest& request : requests) {
    ASSIGN_OR_RETURN(request, NextResting());
  }
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<Pending<nomad::StartTaskResponse>>> calls;
  const double begin = NowMs();
  for (const nomad::StartTaskRequest& request : requests) {
    calls.push_back(std::make_unique<Pending<nomad::StartTaskResponse>>());
    calls.back()->reader = host_->driver().AsyncStartTask(&calls.back()->context, request, &queue);
    calls.back()->AskForAnswer();
  }
  std::vector<double> answered;
  void* tag = nullptr;
  for (bool ok = true; answered.size() < calls.size() && queue.Next(&tag, &ok);) {
    answered.push_back(NowMs() - begin);
  }
  absl::Status failed;
  for (const auto& call : calls) {
    failed.Update(FromGrpc(call->status, "StartTask"));
    if (call->status.ok()) failed.Update(Keep(call->response.handle()));
  }
  if (!failed.ok()) return failed;
  return answered;
}

absl::Status Fleet::Keep(const nomad::TaskHandle& handle) {
  ASSIGN_OR_RETURN(tasks_[handle.config().id()], Inspect(handle));
  return absl::OkStatus();
}

absl::StatusOr<Fleet::Task> Fleet::Inspect(const nomad::TaskHandle& handle) {
  nomad::InspectTaskRequest request;
  request.set_task_id(handle.config().id());
  nomad::InspectTaskResponse response;
  Deadline context;
  RETURN_IF_ERROR(
      FromGrpc(host_->driver().InspectTask(&context, request, &response), "InspectTask"));
  const auto& attributes = response.driver().attributes();
  const auto number = [&](const char* name) {
    const auto it = attributes.find(name);
    int value = 0;
    return it != attributes.end() && absl::SimpleAtoi(it->second, &value) ? value : 0;
  };
  const auto phase = attributes.find("phase");
  return Task{.handle = handle,
              .payload = number("pid"),
              .supervisor = number("supervisor_pid"),
              .init = number("init_pid"),
              .restarts = number("restarts"),
              .connected = phase != attributes.end() && phase->second == "connected"};
}

// ---- ends ----

absl::Status Fleet::Await(const std::string& id) {
  nomad::WaitTaskRequest request;
  request.set_task_id(id);
  nomad::WaitTaskResponse response;
  Deadline context;
  RETURN_IF_ERROR(FromGrpc(host_->driver().WaitTask(&context, request, &response), "WaitTask"));
  if (response.result().exit_code() == 0 && response.err().empty()) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(id, " ended with ", response.result().exit_code(), " ", response.err()));
}

absl::Status Fleet::Destroy(const std::string& id) {
  nomad::DestroyTaskRequest request;
  request.set_task_id(id);
  request.set_force(true);
  nomad::DestroyTaskResponse response;
  Deadline context;
  return FromGrpc(host_->driver().DestroyTask(&context, request, &response), "DestroyTask");
}

absl::StatusOr<double> Fleet::StopTogether() {
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<Pending<nomad::StopTaskResponse>>> calls;
  const double begin = NowMs();
  for (const auto& [id, task] : tasks_) {
    nomad::StopTaskRequest request;
    request.set_task_id(id);
    request.set_signal("SIGCONT");  // the probe does not mind
    request.mutable_timeout()->set_seconds(kStopTimeout.count());
    calls.push_back(std::make_unique<Pending<nomad::StopTaskResponse>>());
    calls.back()->reader = host_->driver().AsyncStopTask(&calls.back()->context, request, &queue);
    calls.back()->AskForAnswer();
  }
  void* tag = nullptr;
  size_t answered = 0;
  for (bool ok = true; answered < calls.size() && queue.Next(&tag, &ok);) ++answered;
  absl::Status failed;
  for (const auto& call : calls) failed.Update(FromGrpc(call->status, "StopTask"));
  if (!failed.ok()) return failed;
  return NowMs() - begin;
}

absl::Status Fleet::DestroyAll() {
  absl::Status first;
  for (const auto& [id, task] : tasks_) first.Update(Destroy(id));
  tasks_.clear();
  return first;
}

// ---- at rest ----

absl::StatusOr<ProcessMemory> Fleet::HelperMemory() const {
  ProcessMemory sum;
  for (const auto& [id, task] : tasks_) {
    for (const pid_t pid : {task.supervisor, task.init}) {
      ASSIGN_OR_RETURN(const ProcessMemory memory, MemoryOf(pid), id);
      sum += memory;
    }
  }
  return sum;
}

absl::StatusOr<int> Fleet::FollowStats(std::chrono::seconds interval,
                                       std::chrono::seconds duration) {
  struct Stream {
    grpc::ClientContext context;
    nomad::TaskStatsResponse response;
    std::unique_ptr<grpc::ClientAsyncReader<nomad::TaskStatsResponse>> reader;
    bool opened = false;
  };
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<Stream>> streams;
  for (const auto& [id, task] : tasks_) {
    nomad::TaskStatsRequest request;
    request.set_task_id(id);
    request.mutable_collection_interval()->set_seconds(interval.count());
    streams.push_back(std::make_unique<Stream>());
    Stream& stream = *streams.back();
    stream.reader = host_->driver().AsyncTaskStats(&stream.context, request, &queue, &stream);
  }
  const auto deadline = std::chrono::system_clock::now() + duration;
  int samples = 0;
  void* tag = nullptr;
  bool ok = false;
  while (queue.AsyncNext(&tag, &ok, deadline) == grpc::CompletionQueue::GOT_EVENT) {
    if (!ok) return absl::InternalError("TaskStats ended while its task runs");
    auto& stream = *static_cast<Stream*>(tag);
    samples += std::exchange(stream.opened, true) ? 1 : 0;
    stream.reader->Read(&stream.response, &stream);
  }
  for (const auto& stream : streams) stream->context.TryCancel();
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  return samples;
}

// ---- recovery ----

absl::Status Fleet::RecoverAll(int at_once, Waits& waits) {
  grpc::CompletionQueue queue;
  std::map<void*, std::string> ids;
  std::vector<std::unique_ptr<Pending<nomad::RecoverTaskResponse>>> calls;
  auto next = tasks_.begin();
  const auto recover_next = [&] {
    nomad::RecoverTaskRequest request;
    *request.mutable_handle() = next->second.handle;
    calls.push_back(std::make_unique<Pending<nomad::RecoverTaskResponse>>());
    ids[calls.back().get()] = next->first;
    ++next;
    calls.back()->reader =
        host_->driver().AsyncRecoverTask(&calls.back()->context, request, &queue);
    calls.back()->AskForAnswer();
  };
  const auto wait_for = [&](const std::string& id) {
    nomad::WaitTaskRequest request;
    request.set_task_id(id);
    waits.calls.push_back(std::make_unique<Pending<nomad::WaitTaskResponse>>());
    Pending<nomad::WaitTaskResponse>& call = *waits.calls.back();
    call.reader = host_->driver().AsyncWaitTask(&call.context, request, &waits.answers);
    call.AskForAnswer();
  };
  for (int i = 0; i < at_once && next != tasks_.end(); ++i) recover_next();
  absl::Status failed;
  for (size_t answered = 0; answered < tasks_.size(); ++answered) {
    void* tag = nullptr;
    bool ok = false;
    if (!queue.Next(&tag, &ok)) break;
    failed.Update(
        FromGrpc(static_cast<Pending<nomad::RecoverTaskResponse>*>(tag)->status, "RecoverTask"));
    wait_for(ids[tag]);
    if (next != tasks_.end()) recover_next();
  }
  return failed;
}

absl::StatusOr<Fleet::Recovery> Fleet::CrashAndRecover(int at_once) {
  RETURN_IF_ERROR(host_->Crash().status());
  Recovery recovery;
  const double crashed = NowMs();
  RETURN_IF_ERROR(LaunchPlugin());
  const double ready = NowMs();
  recovery.relaunch_ms = ready - crashed;

  Waits waits;
  absl::Status failed = RecoverAll(at_once, waits);
  // One connection keeps calls in order: when this is answered, the WaitTasks have arrived.
  const Task& first = tasks_.begin()->second;
  const absl::StatusOr<Task> seen = Inspect(first.handle);
  failed.Update(seen.status());
  if (seen.ok() && seen->payload != first.payload) {
    failed.Update(absl::InternalError("another task was recovered"));
  }
  recovery.recover_ms = NowMs() - ready;
  failed.Update(DestroyAll());
  for (size_t i = 0; i < waits.calls.size(); ++i) {
    void* tag = nullptr;
    bool ok = false;
    if (!waits.answers.Next(&tag, &ok)) break;
    failed.Update(
        FromGrpc(static_cast<Pending<nomad::WaitTaskResponse>*>(tag)->status, "WaitTask"));
  }
  if (!failed.ok()) return failed;
  return recovery;
}

}  // namespace jenkins_agent::bench
