#include "driver/task/store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cgroups/files.h"
#include "cgroups/hierarchy.h"
#include "driver/base/file.h"
#include "driver/base/recoverable.h"
#include "driver/task/record.h"
#include "tests/support/command_config.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;
using std::chrono::milliseconds;
using std::chrono::seconds;

class Store : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    for (const char* part : {"alloc/logs", "agent/local", "agent/secrets"}) {
      const std::string path = absl::StrCat(dir_.path(), "/allocs/", part);
      ASSERT_OK(MakeDirs(path));
      ASSERT_EQ(::chmod(path.c_str(), 0777), 0);
    }
    // The sandbox's user must reach its directories; mkdtemp made this one 0700.
    ASSERT_EQ(::chmod(dir_.path().c_str(), 0711), 0);
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    thread_ = std::thread([this] { loop_->Run(); });
    ASSERT_OK_AND_ASSIGN(Fd program, OpenFile(SUPERVISOR_PROGRAM, O_RDONLY));
    ASSERT_OK_AND_ASSIGN(spawner_, Spawner::Start(std::move(program)));
    ASSERT_OK_AND_ASSIGN(tools_.executable, OpenFile(TOOLS_PROGRAM, O_RDONLY));
    ASSERT_OK(OpenStore());
  }
  void TearDown() override {
    if (store_ != nullptr) {
      EXPECT_OK(store_->Destroy(kId, /*force=*/true));
    }
    store_.reset();
    if (loop_ != nullptr) {
      loop_->Quit();
      thread_.join();
    }
  }

  TaskStore::Options MakeOptions() {
    TaskStore::Options options;
    options.config.state_dir = dir_.path() + "/state";
    options.shared = {loop_.get(), loop_.get(), &events_, &tools_, &metrics_};
    options.spawner = spawner_.get();
    return options;
  }
  // A file of a made-up /proc and /sys in one.
  void WriteHostFile(const std::string& path, const std::string& content) {
    const std::filesystem::path full = absl::StrCat(dir_.path(), "/host/", path);
    std::filesystem::create_directories(full.parent_path());
    ASSERT_OK(WriteFileAtomic(full, content, 0644));
  }
  absl::Status OpenStoreOnThatHost() {
    TaskStore::Options options = MakeOptions();
    options.proc_root = options.sys_root = dir_.path() + "/host";
    return OpenStore(std::move(options));
  }
  absl::Status OpenStore() { return OpenStore(MakeOptions()); }
  absl::Status OpenStore(TaskStore::Options options) {
    store_.reset();
    absl::StatusOr<std::unique_ptr<TaskStore>> store = TaskStore::Open(std::move(options));
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    return absl::OkStatus();
  }

  NomadTask Config(const std::string& command, const std::vector<std::string>& args) {
    NomadTask config;
    config.set_id(kId);
    config.set_alloc_id(absl::StrCat("store-test-", ::getpid()));
    config.set_name("agent");
    config.set_alloc_dir(dir_.path() + "/allocs");
    config.set_stdout_path("/dev/null");
    config.set_stderr_path("/dev/null");
    config.set_msgpack_driver_config(CommandConfig(command, args));
    config.mutable_resources()->mutable_allocated_resources()->mutable_memory()->set_memory_mb(64);
    return config;
  }

  // What Nomad makes (and an earlier supervisor in its place) is Nomad's to remove. That it can be
  // removed proves that nobody is inside; what only we make is gone already.
  static void RemoveAsNomadDoes(const pb::TaskStatus& status) {
    for (const std::string& dir : status.cgroup_dirs()) {
      const bool ours = absl::StrContains(dir, "/pids/") || absl::StrContains(dir, "/cpuacct/");
      EXPECT_TRUE(::rmdir(dir.c_str()) == (ours ? -1 : 0) || errno == ENOENT) << dir;
    }
  }

  pb::ExitRecord AwaitExit() {
    std::promise<pb::ExitRecord> exit;
    std::future<pb::ExitRecord> future = exit.get_future();
    (*store_->Find(kId))->Wait([&exit](const pb::ExitRecord& record) { exit.set_value(record); });
    if (future.wait_for(seconds(60)) != std::future_status::ready) {
      ADD_FAILURE() << "the task did not end";
      std::abort();
    }
    return future.get();
  }

  static constexpr char kId[] = "alloc/agent/1";
  const TempDir dir_;
  EventBus events_;
  Metrics metrics_;
  JarWorkerProgram tools_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  std::unique_ptr<Spawner> spawner_;
  std::unique_ptr<TaskStore> store_;
};

TEST_F(Store, StartRunsWaitTellsDestroyForgets) {
  ASSERT_OK(store_->Start(Config("/bin/sh", {"-c", "exit 7"}), 0));
  const pb::ExitRecord exit = AwaitExit();
  EXPECT_EQ(exit.exit_code(), 7);
  EXPECT_EQ(exit.signal(), 0);
  EXPECT_EQ(AwaitExit().exit_code(), 7);  // repeatable until Destroy
  ASSERT_OK(store_->Destroy(kId, /*force=*/false));
  EXPECT_THAT(store_->Find(kId), StatusIs(absl::StatusCode::kNotFound, HasSubstr(kId)));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/state/tasks"));
  EXPECT_OK(store_->Destroy(kId, true));
}

// A shell stands for the JVM, and the helper for the program that it has become by then.
TEST_F(Store, WhatAJvmStartsIsKilledForMemoryBeforeIt) {
  const std::string home = dir_.path() + "/allocs/agent/local/jdk";
  ASSERT_OK(MakeDirs(home + "/lib"));
  ASSERT_OK(MakeDirs(home + "/bin"));
  std::filesystem::copy_file("/bin/sh", home + "/bin/java");
  ASSERT_OK(WriteFileAtomic(home + "/lib/jspawnhelper",
                            "#!/bin/sh\n"
                            "until [ $(cat /proc/self/oom_score_adj) = 500 ]; do sleep 0.05; done\n"
                            "sh -c 'cat /proc/self/oom_score_adj >/local/child'\n",
                            0755));
  ASSERT_EQ(::chmod((home + "/lib/jspawnhelper").c_str(), 0755), 0);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<OomOrder> order, OomOrder::Create(loop_.get()));
  ASSERT_OK(store_
                ->Start(Config("/local/jdk/bin/java",
                               {"-c",
                                "until [ -e /local/connected ]; do sleep 0.05; done; "
                                "/local/jdk/lib/jspawnhelper; "
                                "cat /proc/self/oom_score_adj >/local/own"}),
                        0)
                .status());
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, (*store_->Find(kId))->Status());
  order->Watch(status.payload_pid());
  ASSERT_OK(WriteFileAtomic(dir_.path() + "/allocs/agent/local/connected", "", 0644));
  EXPECT_EQ(AwaitExit().exit_code(), 0);
  EXPECT_EQ(ReadFile(dir_.path() + "/allocs/agent/local/child").value(), "500\n");
  EXPECT_EQ(ReadFile(dir_.path() + "/allocs/agent/local/own").value(), "0\n");
}

TEST_F(Store, AFailedStartLeavesNothing) {
  EXPECT_THAT(store_->Start(Config("/bin/nope", {}), 0),
              StatusIs(testing::_, HasSubstr("/bin/nope: No such file or directory")));
  EXPECT_THAT(store_->Find(kId), StatusIs(absl::StatusCode::kNotFound, HasSubstr(kId)));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/state/tasks"));
  ASSERT_OK(store_->Start(Config("/bin/sleep", {"60"}), 0));
}

TEST_F(Store, AHostWithoutThreadsOrAHeededWeightIsToldBeforeAnythingIsMade) {
  WriteHostFile("sys/kernel/threads-max", "32000\n");
  WriteHostFile("sys/kernel/pid_max", "32768\n");
  WriteHostFile("meminfo", "MemAvailable: 1048576 kB\n");
  WriteHostFile("loadavg", "9.00 9.00 9.00 1/31990 4711\n");
  WriteHostFile("block/vda/queue/scheduler", "[none] bfq\n");
  ASSERT_OK(OpenStoreOnThatHost());
  const absl::Status full = store_->Start(Config("/bin/sleep", {"60"}), 0).status();
  EXPECT_THAT(full, StatusIs(absl::StatusCode::kResourceExhausted,
                             HasSubstr("host threads 31990 of 32000 in use")));
  EXPECT_TRUE(IsRecoverable(full));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/state/tasks"));

  WriteHostFile("loadavg", "9.00 9.00 9.00 1/151 4711\n");
  NomadTask weighted = Config("/bin/sleep", {"60"});
  std::string options = weighted.msgpack_driver_config();
  options[0]++;  // a map of three
  weighted.set_msgpack_driver_config(options + "\xa9io_weight\x32");
  EXPECT_THAT(store_->Start(weighted, 0),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("none of vda has")));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/state/tasks"));
  EXPECT_OK(store_->Start(Config("/bin/sleep", {"60"}), 0));
}

// The plugin and its spawner in a pids cgroup with room for so many more processes.
class StoreWithoutProcesses : public Store, public ::testing::WithParamInterface<int> {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_OK_AND_ASSIGN(const cgroups::Hierarchy hierarchy, cgroups::Hierarchy::Detect());
    if (hierarchy.version() != cgroups::Version::kV1 || !hierarchy.Has("pids")) {
      GTEST_SKIP() << "needs the pids controller of cgroup v1";
    }
    outer_ = hierarchy.OuterPath("pids");
    Store::SetUp();
    if (HasFatalFailure()) return;
    own_ = absl::StrCat(outer_, "/store-test-", ::getpid());
    ASSERT_EQ(::mkdir(own_.c_str(), 0755), 0);
    for (const pid_t pid : {::getpid(), spawner_->pid()}) {
      ASSERT_OK(cgroups::WriteFileIn(own_, "cgroup.procs", absl::StrCat(pid)));
    }
    ASSERT_OK_AND_ASSIGN(const std::string current, cgroups::ReadFileIn(own_, "pids.current"));
    limit_ = absl::StrCat(std::stoi(current) + GetParam());
    ASSERT_OK(cgroups::WriteFileIn(own_, "pids.max", limit_));
  }
  void TearDown() override {
    if (!own_.empty()) {
      EXPECT_OK(cgroups::WriteFileIn(own_, "pids.max", "max"));
    }
    Store::TearDown();
    spawner_.reset();
    if (own_.empty()) return;
    EXPECT_OK(cgroups::WriteFileIn(outer_, "cgroup.procs", absl::StrCat(::getpid())));
    EXPECT_TRUE(WaitFor([this] { return ::rmdir(own_.c_str()) == 0; }));  // the last ones end
  }

  std::string outer_;
  std::string own_;
  std::string limit_;
};

TEST_P(StoreWithoutProcesses, AStartIsRecoverableAndToldWithTheCgroupsLimit) {
  const absl::Status refused = store_->Start(Config("/bin/sleep", {"60"}), 0).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                AllOf(HasSubstr("Resource temporarily unavailable: "),
                                      HasSubstr(absl::StrCat(" of ", limit_, " processes")),
                                      HasSubstr(absl::StrCat("store-test-", ::getpid())))));
  EXPECT_TRUE(IsRecoverable(refused));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/state/tasks"));
  ASSERT_OK(cgroups::WriteFileIn(own_, "pids.max", "max"));
  EXPECT_OK(store_->Start(Config("/bin/sleep", {"60"}), 0));
}

// The supervisor's fork, its pid 1, and the first launch.
INSTANTIATE_TEST_SUITE_P(Room, StoreWithoutProcesses, ::testing::Values(0, 1, 2));

TEST_F(Store, ARunningTaskIsNotStartedTwiceNorDestroyedWithoutForce) {
  ASSERT_OK(store_->Start(Config("/bin/sleep", {"60"}), 0));
  EXPECT_THAT(store_->Start(Config("/bin/sleep", {"60"}), 0),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("already started")));
  EXPECT_THAT(store_->Destroy(kId, false),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("still running")));
  const std::shared_ptr<Task> task = *store_->Find(kId);
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, task->Status());
  EXPECT_GT(status.payload_pid(), 0);
  ASSERT_OK(task->Stop(SIGTERM, seconds(10)));
  EXPECT_EQ(AwaitExit().exit_code(), 143);
  EXPECT_OK(task->Stop(SIGTERM, seconds(10)));
}

TEST_F(Store, ASignalReachesThePayload) {
  ASSERT_OK(store_->Start(Config("/bin/sleep", {"60"}), 0));
  ASSERT_OK((*store_->Find(kId))->Signal(SIGUSR1));
  const pb::ExitRecord exit = AwaitExit();
  EXPECT_EQ(exit.exit_code(), 128 + SIGUSR1);
  EXPECT_EQ(exit.signal(), SIGUSR1);
}

TEST_F(Store, AnotherPluginIsRefusedWithTheOwnersPid) {
  EXPECT_THAT(TaskStore::Open(MakeOptions()),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr(absl::StrCat("held by another plugin, pid ", ::getpid()))));
}

TEST_F(Store, ANewPluginFindsTheSameProcessAndItsExit) {
  ASSERT_OK_AND_ASSIGN(const std::string state, store_->Start(Config("/bin/sleep", {"60"}), 0));
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus before, (*store_->Find(kId))->Status());
  ASSERT_OK(OpenStore());
  ASSERT_OK(store_->Recover(kId, state));
  ASSERT_OK(store_->Recover(kId, state));
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus after, (*store_->Find(kId))->Status());
  EXPECT_EQ(after.payload_pid(), before.payload_pid());

  const std::shared_ptr<Task> task = *store_->Find(kId);
  ASSERT_OK(task->Stop(SIGKILL, milliseconds(0)));
  ASSERT_OK(OpenStore());
  ASSERT_OK(store_->Recover(kId, state));
  EXPECT_EQ(AwaitExit().exit_code(), 137);
}

TEST_F(Store, ASupervisorThatWasKilledEndsTheTaskWithThatReason) {
  ASSERT_OK_AND_ASSIGN(const std::string state, store_->Start(Config("/bin/sleep", {"60"}), 0));
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, (*store_->Find(kId))->Status());
  ASSERT_EQ(::kill(status.supervisor_pid(), SIGKILL), 0);
  const pb::ExitRecord exit = AwaitExit();
  EXPECT_EQ(exit.exit_code(), -1);
  EXPECT_THAT(exit.message(), HasSubstr(absl::StrCat("supervisor (pid ", status.supervisor_pid())));
  RemoveAsNomadDoes(status);
  ASSERT_OK(OpenStore());
  ASSERT_OK(store_->Recover(kId, state));
  EXPECT_EQ(AwaitExit().exit_code(), -1);
}

TEST_F(Store, RecoverRefusesWhatIsNotThisTasks) {
  ASSERT_OK_AND_ASSIGN(const std::string state, store_->Start(Config("/bin/sleep", {"60"}), 0));
  EXPECT_THAT(store_->Recover("other/agent/2", state),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("belongs to task")));
  EXPECT_THAT(store_->Recover("other/agent/2", "garbage"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
}

TEST_F(Store, ADestroyedTaskIsToldAsLost) {
  ASSERT_OK_AND_ASSIGN(const std::string state, store_->Start(Config("/bin/sleep", {"60"}), 0));
  ASSERT_OK(store_->Destroy(kId, /*force=*/true));
  ASSERT_OK(store_->Recover(kId, state));
  EXPECT_EQ(AwaitExit().exit_code(), -1);
}

TEST_F(Store, DestroyFindsATaskThatOnlyTheDiskKnows) {
  ASSERT_OK(store_->Start(Config("/bin/sleep", {"60"}), 0));
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, (*store_->Find(kId))->Status());
  ASSERT_OK(OpenStore());
  ASSERT_OK(store_->Destroy(kId, true));
  EXPECT_THAT(ProcessStartTime(status.payload_pid()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("")));
  RemoveAsNomadDoes(status);
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/state/tasks"));
}

}  // namespace
}  // namespace jenkins_agent
