#include "tests/bench/fleet.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "tests/support/command_config.h"

namespace jenkins_agent::bench {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;
namespace base_proto = hashicorp::nomad::plugins::base::proto;

constexpr char kTaskName[] = "agent";
constexpr char kProbeInside[] = "/local/probe";
constexpr int kStampTimeoutMs = 30'000;
constexpr std::chrono::seconds kCallLimit(120);
constexpr int64_t kMemoryMb = 64;
constexpr int64_t kCpuShares = 200;

absl::Status FromGrpc(const grpc::Status& status, absl::string_view call) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat(call, ": ", status.error_message()));
}

// fixmap { "state_dir": path }
std::string PluginConfigBytes(const std::string& state_dir) {
  return absl::StrCat("\x81\xa9state_dir", std::string(1, '\xd9'),
                      std::string(1, static_cast<char>(state_dir.size())), state_dir);
}

class Deadline : public grpc::ClientContext {
 public:
  Deadline() { set_deadline(std::chrono::system_clock::now() + kCallLimit); }
};

}  // namespace

absl::StatusOr<double> ReadStamp(int fd) {
  timespec stamp = {};
  auto* bytes = reinterpret_cast<char*>(&stamp);
  for (size_t done = 0; done < sizeof(stamp);) {
    pollfd wait = {fd, POLLIN, 0};
    if (::poll(&wait, 1, kStampTimeoutMs) <= 0) {
      return absl::DeadlineExceededError("the probe wrote nothing");
    }
    const ssize_t size = ::read(fd, bytes + done, sizeof(stamp) - done);
    if (size < 0 && errno == EAGAIN) continue;
    if (size <= 0) return absl::InternalError("the probe ended without a word");
    done += static_cast<size_t>(size);
  }
  return static_cast<double>(stamp.tv_sec) * 1e3 + static_cast<double>(stamp.tv_nsec) / 1e6;
}

Fleet::Fleet(const std::string& dir)
    : dir_(dir),
      state_dir_(dir + "/state"),
      probe_(dir + "/allocs/agent/local/probe"),
      mark_(absl::StrCat("bench-", ::getpid())) {}

absl::StatusOr<std::unique_ptr<Fleet>> Fleet::Launch(const std::string& dir) {
  std::unique_ptr<Fleet> fleet(new Fleet(dir));
  RETURN_IF_ERROR(fleet->Open());
  RETURN_IF_ERROR(fleet->LaunchPlugin());
  return fleet;
}

absl::Status Fleet::Open() {
  if (::chmod(dir_.c_str(), 0711) != 0) return ErrnoStatus(dir_);
  for (const char* part : {"alloc/logs", "agent/local", "agent/secrets"}) {
    const std::string path = absl::StrCat(dir_, "/allocs/", part);
    RETURN_IF_ERROR(MakeDirs(path));
    if (::chmod(path.c_str(), 0777) != 0) return ErrnoStatus(path);
  }
  std::error_code error;
  std::filesystem::copy_file(PROBE_FILE, probe_, error);
  if (error) return absl::InternalError(absl::StrCat("copy of the probe: ", error.message()));
  const std::string fifo = dir_ + "/stdout";
  if (::mkfifo(fifo.c_str(), 0600) != 0) return ErrnoStatus(fifo);
  // For writing too: it must not end between two tasks.
  ASSIGN_OR_RETURN(output_, OpenFile(fifo, O_RDWR | O_NONBLOCK));
  return absl::OkStatus();
}

absl::Status Fleet::LaunchPlugin() {
  ASSIGN_OR_RETURN(host_, PluginHost::Launch(DRIVER_FILE, {}));
  if (!host_->connected()) return absl::InternalError("the plugin's handshake did not come");
  base_proto::SetConfigRequest request;
  request.set_msgpack_config(PluginConfigBytes(state_dir_));
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

absl::StatusOr<Fleet::Task> Fleet::Start(const std::string& id,
                                         const std::vector<std::string>& args,
                                         const std::string& stdout_path) {
  return StartCommand(id, kProbeInside, args, stdout_path);
}

absl::Status Fleet::StartScript(const std::string& script) {
  ASSIGN_OR_RETURN(Task task, StartCommand("script", "/bin/sh", {"-c", script}, "/dev/null"));
  const std::string id = task.handle.config().id();
  tasks_[id] = std::move(task);
  return absl::OkStatus();
}

absl::StatusOr<Fleet::Task> Fleet::StartCommand(const std::string& id, const std::string& command,
                                                const std::vector<std::string>& args,
                                                const std::string& stdout_path) {
  nomad::StartTaskRequest request;
  nomad::TaskConfig& config = *request.mutable_task();
  config.set_id(absl::StrCat(mark_, "/", kTaskName, "/", id));
  config.set_alloc_id(absl::StrCat(mark_, "-", id));
  config.set_name(kTaskName);
  config.set_alloc_dir(dir_ + "/allocs");
  config.set_stdout_path(stdout_path);
  config.set_stderr_path("/dev/null");
  config.set_msgpack_driver_config(CommandConfig(command, args));
  nomad::Resources& resources = *config.mutable_resources();
  resources.mutable_allocated_resources()->mutable_memory()->set_memory_mb(kMemoryMb);
  resources.mutable_linux_resources()->set_cpu_shares(kCpuShares);
  nomad::StartTaskResponse response;
  Deadline context;
  RETURN_IF_ERROR(FromGrpc(host_->driver().StartTask(&context, request, &response), "StartTask"));
  Task task;
  task.handle = response.handle();
  return task;
}

absl::StatusOr<Fleet::Sample> Fleet::MeasureStart() {
  const double sent = NowMs();
  ASSIGN_OR_RETURN(const Task task, Start("start", {}, dir_ + "/stdout"));
  Sample sample;
  sample.answered_ms = NowMs() - sent;
  ASSIGN_OR_RETURN(const double stamp, ReadStamp(output_.get()));
  sample.first_instruction_ms = stamp - sent;
  RETURN_IF_ERROR(Await(task.handle.config().id()));
  RETURN_IF_ERROR(Destroy(task.handle.config().id()));
  return sample;
}

absl::Status Fleet::Cycle() {
  ASSIGN_OR_RETURN(const Task task, Start("cycle", {}, "/dev/null"));
  RETURN_IF_ERROR(Await(task.handle.config().id()));
  return Destroy(task.handle.config().id());
}

absl::Status Fleet::StartResting(int from, int to) {
  for (int i = from; i < to; ++i) {
    ASSIGN_OR_RETURN(Task task, Start(absl::StrCat(i), {"rest"}, "/dev/null"), "task ", i);
    const std::string id = task.handle.config().id();
    RETURN_IF_ERROR(Inspect(id, task));
    tasks_[id] = std::move(task);
  }
  return absl::OkStatus();
}

absl::Status Fleet::Inspect(const std::string& id, Task& task) {
  nomad::InspectTaskRequest request;
  request.set_task_id(id);
  nomad::InspectTaskResponse response;
  Deadline context;
  RETURN_IF_ERROR(
      FromGrpc(host_->driver().InspectTask(&context, request, &response), "InspectTask"));
  const auto& attributes = response.driver().attributes();
  const auto pid = [&](const char* name) {
    const auto it = attributes.find(name);
    pid_t value = 0;
    return it != attributes.end() && absl::SimpleAtoi(it->second, &value) ? value : 0;
  };
  task.supervisor = pid("supervisor_pid");
  task.init = pid("init_pid");
  if (task.supervisor > 0 && task.init > 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("InspectTask of ", id, " names no helper processes"));
}

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

absl::Status Fleet::DestroyAll() {
  absl::Status first;
  for (const auto& [id, task] : tasks_) first.Update(Destroy(id));
  tasks_.clear();
  return first;
}

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

absl::StatusOr<Fleet::Recovery> Fleet::CrashAndRecover() {
  RETURN_IF_ERROR(host_->Crash().status());
  Recovery recovery;
  const double crashed = NowMs();
  RETURN_IF_ERROR(LaunchPlugin());
  const double ready = NowMs();
  recovery.relaunch_ms = ready - crashed;

  struct Waiting {
    grpc::ClientContext context;
    nomad::WaitTaskResponse response;
    grpc::Status status;
    std::unique_ptr<grpc::ClientAsyncResponseReader<nomad::WaitTaskResponse>> reader;
  };
  grpc::CompletionQueue answers;
  std::vector<std::unique_ptr<Waiting>> waits;
  absl::Status failed;
  for (const auto& [id, task] : tasks_) {
    nomad::RecoverTaskRequest request;
    *request.mutable_handle() = task.handle;
    nomad::RecoverTaskResponse response;
    Deadline context;
    failed.Update(
        FromGrpc(host_->driver().RecoverTask(&context, request, &response), "RecoverTask"));
    waits.push_back(std::make_unique<Waiting>());
    Waiting& wait = *waits.back();
    nomad::WaitTaskRequest wait_request;
    wait_request.set_task_id(id);
    wait.reader = host_->driver().AsyncWaitTask(&wait.context, wait_request, &answers);
    wait.reader->Finish(&wait.response, &wait.status, &wait);
  }
  // One connection keeps calls in order: when this is answered, the WaitTasks have arrived.
  for (const auto& [id, task] : tasks_) {
    Task seen;
    failed.Update(Inspect(id, seen));
    if (seen.init != task.init) failed.Update(absl::InternalError("another task was recovered"));
    break;
  }
  recovery.recover_ms = NowMs() - ready;
  const absl::Status destroyed = DestroyAll();
  failed.Update(destroyed);
  for (size_t i = 0; i < waits.size(); ++i) {
    void* tag = nullptr;
    bool ok = false;
    if (!answers.Next(&tag, &ok)) break;
    failed.Update(FromGrpc(static_cast<Waiting*>(tag)->status, "WaitTask"));
  }
  answers.Shutdown();
  if (!failed.ok()) return failed;
  return recovery;
}

}  // namespace jenkins_agent::bench
