#include "tests/supervisor/harness.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "driver/base/clock.h"
#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/sandbox/image_base.h"
#include "driver/sandbox/seccomp.h"
#include "driver/sandbox/template_plan.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

constexpr uid_t kUid = 20001;
constexpr std::chrono::milliseconds kCallTimeout{10'000};

}  // namespace

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kTestDeadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

bool ProcessAlive(int pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(stat, text);
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.size() > name_end + 2 && text[name_end + 2] != 'Z';
}

bool PathExists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// ---- Watcher ----

Watcher::Watcher(EventLoop* loop, Fd connection) {
  Control::Handlers handlers;
  handlers.on_event = [news = news_](const pb::Event& event) {
    MutexLock lock(news->mutex);
    news->events.push_back(absl::StrCat(pb::AgentPhase_Name(event.phase()), " ", event.message()));
    news->changed.NotifyAll();
  };
  handlers.on_exit = [news = news_](const pb::ExitRecord& exit) {
    MutexLock lock(news->mutex);
    news->exit = exit;
    news->changed.NotifyAll();
  };
  handlers.on_lost = [news = news_] {
    MutexLock lock(news->mutex);
    news->lost = true;
    news->changed.NotifyAll();
  };
  control_ = Control::Create(loop, std::move(connection), std::move(handlers));
}

absl::StatusOr<pb::ControlReply> Watcher::Call(pb::ControlRequest request) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<pb::ControlReply>>>();
  control_->Call(
      std::move(request),
      [promise](absl::StatusOr<pb::ControlReply> reply) { promise->set_value(std::move(reply)); },
      kCallTimeout);
  return promise->get_future().get();
}

pb::TaskStatus Watcher::Status() {
  pb::ControlRequest request;
  request.mutable_hello()->set_watch(true);
  const absl::StatusOr<pb::ControlReply> reply = Call(request);
  EXPECT_OK(reply);
  return reply.ok() ? reply->status() : pb::TaskStatus();
}

absl::Status Watcher::Stop(int signal, std::chrono::milliseconds timeout) {
  pb::ControlRequest request;
  request.mutable_stop()->set_signal(signal);
  request.mutable_stop()->set_timeout_ms(timeout.count());
  return Call(request).status();
}

absl::Status Watcher::Signal(int signal) {
  pb::ControlRequest request;
  request.mutable_signal()->set_signal(signal);
  return Call(request).status();
}

absl::Status Watcher::JarReady(const pb::JarInfo& jar) {
  pb::ControlRequest request;
  *request.mutable_jar_ready()->mutable_jar() = jar;
  return Call(request).status();
}

absl::Status Watcher::Note(const std::string& waiting_for) {
  pb::ControlRequest request;
  request.mutable_note()->set_waiting_for(waiting_for);
  return Call(request).status();
}

absl::Status Watcher::Verdict(const std::string& cause, uint32_t launches) {
  pb::ControlRequest request;
  request.mutable_verdict()->set_cause(cause);
  request.mutable_verdict()->set_launches(launches);
  return Call(request).status();
}

absl::Status Watcher::Aged(const std::string& cause, uint32_t launches) {
  pb::ControlRequest request;
  request.mutable_verdict()->set_cause(cause);
  request.mutable_verdict()->set_launches(launches);
  request.mutable_verdict()->set_aged(true);
  return Call(request).status();
}

absl::Status Watcher::Done(uint32_t launches) {
  pb::ControlRequest request;
  request.mutable_done()->set_launches(launches);
  return Call(request).status();
}

absl::Status Watcher::Exec(const std::vector<std::string>& argv) {
  pb::ControlRequest request;
  for (const std::string& argument : argv) request.mutable_exec()->add_argv(argument);
  return Call(request).status();
}

bool Watcher::WaitFor(const std::function<bool(const News&)>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kTestDeadline;
  MutexLock lock(news_->mutex);
  while (!condition(*news_)) {
    if (!news_->changed.WaitUntil(news_->mutex, deadline)) return condition(*news_);
  }
  return true;
}

std::optional<pb::ExitRecord> Watcher::WaitExit() {
  WaitFor([](const News& news) { return news.exit.has_value(); });
  MutexLock lock(news_->mutex);
  return news_->exit;
}

bool Watcher::WaitLost() {
  return WaitFor([](const News& news) { return news.lost; });
}

bool Watcher::WaitEvent(const std::string& part) { return !EventWith(part).empty(); }

std::string Watcher::EventWith(const std::string& part) {
  std::string found;
  WaitFor([&](const News& news) {
    for (const std::string& event : news.events) {
      if (absl::StrContains(event, part)) found = event;
      if (!found.empty()) return true;
    }
    return false;
  });
  return found;
}

// ---- SupervisorTest ----

void SupervisorTest::SetUp() {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  static int counter = 0;
  cgroup_name_ =
      "ja-supervisor-test-" + std::to_string(::getpid()) + "." + std::to_string(++counter);
  for (const char* dir : {"/task", "/local", "/alloc", "/secrets", "/jdk"}) {
    ASSERT_OK(MakeDirs(directory_.path() + dir));
  }
  ASSERT_EQ(::chown((directory_.path() + "/local").c_str(), kUid, kUid), 0);
  for (const char* file : {"/stdout", "/stderr"}) {
    ASSERT_OK(OpenFile(directory_.path() + file, O_CREAT | O_WRONLY, 0600));
  }
  auto loop = EventLoop::Create();
  ASSERT_OK(loop);
  loop_ = *std::move(loop);
  loop_thread_ = std::thread([this] { loop_->Run(); });
  ASSERT_OK_AND_ASSIGN(Fd program, OpenFile(JA_SUPERVISOR_PROGRAM, O_RDONLY));
  ASSERT_OK_AND_ASSIGN(spawner_, Spawner::Start(std::move(program)));
}

void SupervisorTest::TearDown() {
  watcher_.reset();
  EndTask();
  spawner_.reset();
  if (!loop_) return;
  loop_->Quit();
  loop_thread_.join();
  if (HasFailure()) std::cerr << "supervisor.log:\n" << Content("task/supervisor.log");
}

// A test that fails in its middle leaves a sandbox that would outlive it.
void SupervisorTest::EndTask() {
  absl::StatusOr<Fd> connection = ConnectToSupervisor(TaskDir());
  if (!connection.ok() || loop_ == nullptr) return;
  Watcher watcher(loop_.get(), *std::move(connection));
  watcher.Status();
  watcher.Stop(SIGKILL, std::chrono::milliseconds(0)).IgnoreError();  // it may be ending by itself
  EXPECT_TRUE(watcher.WaitExit() || watcher.WaitLost());
}

HostRootfs SupervisorTest::Rootfs() const {
  HostRootfs rootfs;
  rootfs.alloc_dir = directory_.path() + "/alloc";
  rootfs.local_dir = directory_.path() + "/local";
  rootfs.secrets_dir = directory_.path() + "/secrets";
  rootfs.extra_read_only = {directory_.path() + "/jdk"};
  rootfs.uid = kUid;
  rootfs.gid = kUid;
  rootfs.user_name = "tester";
  rootfs.home = "/local";
  rootfs.hostname = "box";
  return rootfs;
}

pb::LaunchSpec SupervisorTest::OnImage(const std::string& layer,
                                       const std::vector<std::string>& argv) {
  pb::LaunchSpec spec = Spec(argv);
  const absl::StatusOr<std::vector<pb::MountSpec>> mounts = PlanImageRootfs(Rootfs());
  EXPECT_OK(mounts);
  pb::SandboxSpec& sandbox = *spec.mutable_sandbox();
  sandbox.clear_mounts();
  for (const pb::MountSpec& mount : *mounts) *sandbox.add_mounts() = mount;
  const std::string rootfs = StatePaths::RootfsDir(TaskDir());
  EXPECT_OK(MakeDirs(rootfs, 0700));
  sandbox.mutable_image()->add_layers(absl::StrCat(rootfs, "/", kImageBaseDir));
  sandbox.mutable_image()->add_layers(layer);
  sandbox.mutable_image()->set_writable_dir(rootfs);
  return spec;
}

pb::LaunchSpec SupervisorTest::Spec(const std::vector<std::string>& argv) {
  const absl::StatusOr<std::vector<pb::MountSpec>> mounts = PlanHostRootfs(Rootfs());
  EXPECT_OK(mounts);

  pb::LaunchSpec spec;
  spec.set_task_id("alloc/task/12345678");
  spec.set_task_dir(TaskDir());
  pb::SandboxSpec& sandbox = *spec.mutable_sandbox();
  sandbox.set_hostname("box");
  for (const pb::MountSpec& mount : *mounts) *sandbox.add_mounts() = mount;
  for (const std::string& path : DefaultMaskedPaths()) sandbox.add_masked_paths(path);
  for (const std::string& path : DefaultReadOnlyPaths()) sandbox.add_read_only_paths(path);
  sandbox.set_payload_filter(PayloadFilter());
  sandbox.set_init_filter(InitFilter());
  spec.mutable_cgroup()->set_name(cgroup_name_);
  spec.mutable_cgroup()->set_memory_bytes(256 << 20);
  spec.mutable_cgroup()->set_cpu_shares(500);
  spec.mutable_cgroup()->set_pids(64);
  spec.mutable_user()->set_uid(kUid);
  spec.mutable_user()->set_gid(kUid);
  spec.mutable_user()->set_name("tester");
  spec.mutable_user()->set_home("/local");
  for (const std::string& argument : argv) spec.mutable_program()->add_argv(argument);
  spec.mutable_program()->add_env("PATH=/usr/bin:/bin");
  spec.mutable_program()->set_work_dir("/local");
  spec.mutable_output()->set_stdout_path(directory_.path() + "/stdout");
  spec.mutable_output()->set_stderr_path(directory_.path() + "/stderr");
  return spec;
}

absl::StatusOr<Fd> SupervisorTest::Spawn(pb::LaunchSpec spec) {
  if (spec.sandbox().has_image()) {
    RETURN_IF_ERROR(MakeImageBase(*spec.mutable_sandbox()));
    *spec.mutable_root_template() = TemplateForImages();
  } else {
    *spec.mutable_root_template() = TakeTemplate(*spec.mutable_sandbox(), spec.user());
  }
  return spawner_->Spawn(spec, MonotonicNs());
}

absl::StatusOr<pb::TaskStatus> SupervisorTest::Start(const pb::LaunchSpec& spec) {
  ASSIGN_OR_RETURN(Fd connection, Spawn(spec));
  ASSIGN_OR_RETURN(pb::TaskStatus status, AwaitStart(connection.get(), kTestDeadline));
  watcher_ = std::make_unique<Watcher>(loop_.get(), std::move(connection));
  watcher_->Status();
  return status;
}

std::unique_ptr<Watcher> SupervisorTest::Reconnect() {
  absl::StatusOr<Fd> connection = ConnectToSupervisor(TaskDir());
  EXPECT_OK(connection);
  if (!connection.ok()) return nullptr;
  return std::make_unique<Watcher>(loop_.get(), *std::move(connection));
}

void SupervisorTest::ExpectAnUndisturbedStart(const pb::TaskStatus& lost) {
  ASSERT_OK(Start(Shell("exit 3")));
  ASSERT_TRUE(watcher().WaitExit());
  for (const std::string& dir : lost.cgroup_dirs()) {
    EXPECT_TRUE(::rmdir(dir.c_str()) == 0 || errno == ENOENT) << dir;
  }
}

std::optional<pb::ExitRecord> SupervisorTest::RecordOnDisk() {
  const auto record = ReadExitRecord(TaskDir());
  EXPECT_OK(record);
  return record.ok() ? *record : std::nullopt;
}

std::string SupervisorTest::Content(const std::string& name) const {
  std::ifstream file(directory_.path() + "/" + name);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

void SupervisorTest::ExpectNothingLeft(const pb::TaskStatus& status) {
  EXPECT_FALSE(PathExists(TaskDir() + "/control.sock"));
  for (const std::string& dir : status.cgroup_dirs()) EXPECT_FALSE(PathExists(dir)) << dir;
  EXPECT_FALSE(ProcessAlive(status.init_pid()));
  EXPECT_TRUE(status.payload_pid() == 0 || !ProcessAlive(status.payload_pid()));
}

}  // namespace jenkins_agent
