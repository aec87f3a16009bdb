#include "tests/contract/task_host.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/process.h"
#include "driver/base/status.h"
#include "tests/support/command_config.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

namespace base_proto = hashicorp::nomad::plugins::base::proto;
namespace fs = std::filesystem;

constexpr char kTaskName[] = "agent";

std::string PluginConfigBytes(const std::string& state_dir, const TaskHost::Settings& settings) {
  nlohmann::json config = {{"log_collection", settings.log_collection}, {"state_dir", state_dir}};
  if (!settings.metrics_listen.empty()) {
    config["metrics"] = {{"listen", settings.metrics_listen}};
  }
  config.update(settings.config);
  const std::vector<uint8_t> bytes = nlohmann::json::to_msgpack(config);
  return {bytes.begin(), bytes.end()};
}

std::string UniqueAllocId() {
  static std::atomic<int> count = 0;
  return absl::StrCat("task-host-", ::getpid(), "-", count++);
}

std::string ReadProc(int pid, const char* file) {
  return ReadFile(absl::StrCat("/proc/", pid, "/", file), 4 << 20).value_or("");
}

std::vector<int> AllPids() {
  std::vector<int> pids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    int pid = 0;
    if (absl::SimpleAtoi(entry.path().filename().native(), &pid)) pids.push_back(pid);
  }
  return pids;
}

google::protobuf::Duration ToProto(std::chrono::milliseconds time) {
  google::protobuf::Duration duration;
  duration.set_seconds(time.count() / 1000);
  duration.set_nanos(static_cast<int32_t>(time.count() % 1000 * 1'000'000));
  return duration;
}

std::unique_ptr<grpc::ClientContext> Context() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + TaskHost::kCallLimit);
  return context;
}

}  // namespace

TaskHost::TaskHost(std::string program) : program_(std::move(program)), alloc_id_(UniqueAllocId()) {
  ::chmod(dir_.path().c_str(), 0711);  // the sandbox's user must reach its directories
  MakeTaskDirs(kTaskName).IgnoreError();
}

TaskHost::~TaskHost() {
  for (const int pid : Processes()) ::kill(pid, SIGKILL);
  WaitFor([&] { return Processes().empty(); });
}

std::shared_ptr<PluginHost> TaskHost::Host() const {
  const MutexLock lock(mutex_);
  return host_;
}

absl::Status TaskHost::Launch(const Settings& settings) {
  PluginHost::Options options;
  for (const auto& [name, value] : settings.env) options.env[name] = value;
  ASSIGN_OR_RETURN(std::shared_ptr<PluginHost> host, PluginHost::Launch(program_, options));
  if (!host->connected()) return absl::InternalError(host->stderr_text());
  base_proto::SetConfigRequest request;
  request.set_msgpack_config(PluginConfigBytes(StateDir(), settings));
  request.mutable_nomad_config()->mutable_driver()->set_clientminport(14000);
  base_proto::SetConfigResponse response;
  const auto context = Context();
  const grpc::Status configured = host->base().SetConfig(context.get(), request, &response);
  if (!configured.ok()) return absl::InternalError(configured.error_message());
  nomad::InitResponse initialised;
  const grpc::Status init = host->driver().Init(Context().get(), {}, &initialised);
  if (!init.ok()) return absl::InternalError(init.error_message());
  const MutexLock lock(mutex_);
  host_ = std::move(host);
  return absl::OkStatus();
}

absl::Status TaskHost::Crash() {
  const std::shared_ptr<PluginHost> host = Host();
  ::kill(host->pid(), SIGKILL);
  return host->AwaitEnd().status();  // calls that are under way keep the connection
}

absl::Status TaskHost::Quit() {
  const std::shared_ptr<PluginHost> host = Host();
  nomad::ShutdownResponse response;
  const grpc::Status told = host->driver().Shutdown(Context().get(), {}, &response);
  if (!told.ok()) return absl::InternalError(told.error_message());
  return host->Kill().status();
}

absl::Status TaskHost::AwaitPluginEnd() { return Host()->AwaitEnd().status(); }

nomad::TaskConfig TaskHost::Config(const std::string& id, const std::string& script) const {
  return Config(id, "/bin/sh", {"-c", script});
}

nomad::TaskConfig TaskHost::Config(const std::string& id, const std::string& command,
                                   const std::vector<std::string>& args) const {
  nomad::TaskConfig config;
  config.set_id(id);
  config.set_alloc_id(absl::StrCat(alloc_id_, "-", absl::StrReplaceAll(id, {{"/", "-"}})));
  config.set_name(kTaskName);
  config.set_alloc_dir(dir_.path() + "/allocs");
  config.set_stdout_path("/dev/null");
  config.set_stderr_path("/dev/null");
  config.set_msgpack_driver_config(CommandConfig(command, args));
  return config;
}

absl::Status TaskHost::MakeTaskDirs(const std::string& name) const {
  for (const std::string& part : {std::string("alloc/logs"), name + "/local", name + "/secrets"}) {
    const std::string path = absl::StrCat(dir_.path(), "/allocs/", part);
    RETURN_IF_ERROR(MakeDirs(path));
    if (::chmod(path.c_str(), 0777) != 0) return ErrnoStatus(path);
  }
  return absl::OkStatus();
}

grpc::Status TaskHost::Start(const nomad::TaskConfig& config, nomad::TaskHandle* handle) {
  nomad::StartTaskRequest request;
  *request.mutable_task() = config;
  nomad::StartTaskResponse response;
  const auto context = Context();
  const grpc::Status status = Host()->driver().StartTask(context.get(), request, &response);
  *handle = response.handle();
  return status;
}

grpc::Status TaskHost::Recover(const nomad::TaskHandle& handle) {
  nomad::RecoverTaskRequest request;
  *request.mutable_handle() = handle;
  nomad::RecoverTaskResponse response;
  const auto context = Context();
  return Host()->driver().RecoverTask(context.get(), request, &response);
}

grpc::Status TaskHost::Wait(const std::string& id, nomad::WaitTaskResponse* response) {
  nomad::WaitTaskRequest request;
  request.set_task_id(id);
  const auto context = Context();
  return Host()->driver().WaitTask(context.get(), request, response);
}

grpc::Status TaskHost::Stop(const std::string& id, const std::string& signal, int timeout_ms) {
  nomad::StopTaskRequest request;
  request.set_task_id(id);
  request.set_signal(signal);
  *request.mutable_timeout() = ToProto(std::chrono::milliseconds(timeout_ms));
  nomad::StopTaskResponse response;
  const auto context = Context();
  return Host()->driver().StopTask(context.get(), request, &response);
}

grpc::Status TaskHost::Signal(const std::string& id, const std::string& signal) {
  nomad::SignalTaskRequest request;
  request.set_task_id(id);
  request.set_signal(signal);
  nomad::SignalTaskResponse response;
  const auto context = Context();
  return Host()->driver().SignalTask(context.get(), request, &response);
}

grpc::Status TaskHost::Destroy(const std::string& id, bool force) {
  nomad::DestroyTaskRequest request;
  request.set_task_id(id);
  request.set_force(force);
  nomad::DestroyTaskResponse response;
  const auto context = Context();
  return Host()->driver().DestroyTask(context.get(), request, &response);
}

grpc::Status TaskHost::Inspect(const std::string& id, nomad::InspectTaskResponse* response) {
  nomad::InspectTaskRequest request;
  request.set_task_id(id);
  const auto context = Context();
  return Host()->driver().InspectTask(context.get(), request, response);
}

grpc::Status TaskHost::Exec(const std::string& id, const std::vector<std::string>& command,
                            std::chrono::milliseconds timeout, nomad::ExecTaskResponse* response) {
  nomad::ExecTaskRequest request;
  request.set_task_id(id);
  for (const std::string& argument : command) request.add_command(argument);
  *request.mutable_timeout() = ToProto(timeout);
  const auto context = Context();
  return Host()->driver().ExecTask(context.get(), request, response);
}

std::string TaskHost::TaskDir(const std::string& id) const {
  return StatePaths(StateDir()).Task(id);
}

int TaskHost::TasksOnDisk() const {
  std::error_code error;
  const fs::directory_iterator tasks(StateDir() + "/tasks", error);
  return static_cast<int>(std::distance(begin(tasks), end(tasks)));
}

// Our programs are known by what they hold of our directory, payloads by their cgroup's name.
bool TaskHost::Ours(int pid) const {
  if (absl::StrContains(ReadProc(pid, "cgroup"), alloc_id_)) return true;
  const std::string name = ReadProc(pid, "comm");
  if (!absl::StartsWith(name, "ja-")) return false;
  if (absl::StartsWith(name, "ja-init")) {
    return absl::StrContains(ReadProc(pid, "mountinfo"), dir_.path());
  }
  std::error_code error;
  for (const auto& fd : fs::directory_iterator(absl::StrCat("/proc/", pid, "/fd"), error)) {
    std::error_code gone;
    if (absl::StartsWith(fs::read_symlink(fd.path(), gone).native(), dir_.path())) return true;
  }
  return false;
}

std::vector<int> TaskHost::Processes() const {
  std::vector<int> pids;
  for (const int pid : AllPids()) {
    if (ProcessStartTime(pid).ok() && Ours(pid)) pids.push_back(pid);
  }
  return pids;
}

std::vector<int> TaskHost::Supervisors() const {
  std::vector<int> pids;
  for (const int pid : AllPids()) {
    if (absl::StartsWith(ReadProc(pid, "comm"), "ja-supervisor") && Ours(pid)) pids.push_back(pid);
  }
  return pids;
}

std::vector<int> TaskHost::Payloads() const {
  std::vector<int> pids;
  for (const int pid : AllPids()) {
    const bool inside = absl::StrContains(ReadProc(pid, "cgroup"), alloc_id_);
    if (inside && ProcessStartTime(pid).ok()) pids.push_back(pid);
  }
  return pids;
}

std::vector<std::string> TaskHost::Cgroups() const {
  std::vector<std::string> found;
  const std::function<void(const fs::path&, int)> walk = [&](const fs::path& dir, int depth) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(dir, error)) {
      if (entry.is_symlink(error) || !entry.is_directory(error)) continue;
      if (absl::StrContains(entry.path().filename().native(), alloc_id_)) {
        found.push_back(entry.path().native());
      } else if (depth > 0) {
        walk(entry.path(), depth - 1);
      }
    }
  };
  walk("/sys/fs/cgroup", 4);
  return found;
}

std::string TaskHost::LookForLeftovers() const {
  std::string left;
  for (const int pid : Processes()) {
    absl::StrAppend(&left, "process ", pid, " ", ReadProc(pid, "comm"));
  }
  if (absl::StrContains(ReadProc(::getpid(), "mountinfo"), dir_.path() + "/")) {
    absl::StrAppend(&left, "a mount\n");
  }
  for (const std::string& dir : Cgroups()) {
    // Where Nomad makes a task's cgroups it removes them, and we leave them: empty ones are fine.
    const bool ours = absl::StrContains(dir, "/pids/") || absl::StrContains(dir, "/cpuacct/") ||
                      !fs::exists("/sys/fs/cgroup/cpuset/nomad");
    if (ours || ::rmdir(dir.c_str()) != 0) absl::StrAppend(&left, "cgroup ", dir, "\n");
  }
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(StateDir() + "/tasks", error)) {
    absl::StrAppend(&left, "directory ", entry.path().native(), "\n");
    for (const auto& file : fs::directory_iterator(entry.path(), error)) {
      absl::StrAppend(&left, "  ", file.path().filename().native(), "\n");
    }
  }
  return left;
}

std::string TaskHost::Leftovers() const {
  std::string left;
  WaitFor([&] { return (left = LookForLeftovers()).empty(); }, std::chrono::seconds(15));
  return left;
}

}  // namespace jenkins_agent
