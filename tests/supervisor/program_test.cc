// Any program in a sandbox: start, exit, stop, signals, deaths of everyone around it.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "tests/supervisor/cgroup_moves.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class Program : public SupervisorTest {};

TEST_F(Program, RunsAndItsExitCodeIsRecordedBeforeItIsTold) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Shell("echo out; echo err >&2; exit 7")));
  const auto told = watcher().WaitExit();
  const auto record = RecordOnDisk();
  ASSERT_TRUE(told && record);
  EXPECT_EQ(told->exit_code(), 7);
  EXPECT_EQ(record->exit_code(), 7);
  EXPECT_EQ(record->signal(), 0);
  EXPECT_EQ(record->launches(), 1u);
  EXPECT_EQ(record->task_id(), "alloc/task/12345678");
  EXPECT_EQ(record->message(), "");
  EXPECT_LE(record->started_at_ns(), record->finished_at_ns());
  EXPECT_EQ(Stdout(), "out\n");
  EXPECT_EQ(Stderr(), "err\n");
  ExpectNothingLeft(status);
}

// Moving waits for an RCU grace period (cgroups/cgroup.h).
TEST_F(Program, OnCgroupV2NobodyMovesIntoTheCgroupForTheFirstLaunch) {
  if (::access("/sys/fs/cgroup/cgroup.controllers", F_OK) != 0) GTEST_SKIP() << "needs cgroup v2";
  const CgroupMoves moves;
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  const std::string& cgroup = status.cgroup_dirs(0);
  ASSERT_OK_AND_ASSIGN(const std::string members, ReadFile(cgroup + "/cgroup.procs"));
  EXPECT_EQ(members, absl::StrCat(status.payload_pid(), "\n"));
  EXPECT_FALSE(moves.Into(cgroup));
  moves.ExpectThatAMoveIsSeen(cgroup);
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Program, StatusShowsHostPidsWhileItRuns) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  EXPECT_EQ(status.state(), pb::RUNNING);
  EXPECT_EQ(status.launches(), 1u);
  EXPECT_TRUE(ProcessAlive(status.supervisor_pid()));
  EXPECT_TRUE(ProcessAlive(status.init_pid()));
  EXPECT_TRUE(ProcessAlive(status.payload_pid()));
  EXPECT_GT(status.timings().launched_ms(), status.timings().sandbox_ms());
  EXPECT_GT(status.timings().sandbox_ms(), status.timings().forked_ms());
  for (const std::string& dir : status.cgroup_dirs()) EXPECT_TRUE(PathExists(dir)) << dir;
  EXPECT_GT(status.cgroup_dirs_size(), 0);
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  EXPECT_TRUE(watcher().WaitExit());
}

TEST_F(Program, HasNamespacesOfItsOwn) {
  const std::vector<std::string> names = {"cgroup", "ipc", "mnt", "pid", "uts"};
  ASSERT_OK(
      Start(Shell("for name in cgroup ipc mnt pid uts; do readlink /proc/self/ns/$name; done")));
  ASSERT_TRUE(watcher().WaitExit());
  const std::vector<std::string> own = absl::StrSplit(Stdout(), '\n', absl::SkipEmpty());
  ASSERT_EQ(own.size(), names.size()) << Stderr();
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_THAT(own[i], StartsWith(names[i] + ":["));
    EXPECT_NE(own[i], std::filesystem::read_symlink("/proc/self/ns/" + names[i]).string());
  }
}

TEST_F(Program, SeesItsSandbox) {
  ASSERT_OK(
      Start(Shell("hostname; id -u; case $$ in [2-9]) echo own;; esac; pwd; tr '\\0' ' ' "
                  "</proc/1/cmdline; echo;"
                  "cat /proc/1/environ 2>/dev/null; cut -d: -f3 /proc/self/cgroup | sort -u;"
                  "ls /proc/self/fd | wc -l")));
  ASSERT_TRUE(watcher().WaitExit());
  // 4: ls itself has the directory open.
  EXPECT_THAT(Stdout(), StartsWith("box\n20001\nown\n/local\n/proc/self/fd/")) << Stderr();
  EXPECT_THAT(Stdout(), testing::EndsWith("\n/\n4\n"));
}

TEST_F(Program, AMissingProgramFailsTheStartAndLeavesNothing) {
  const auto status = Start(Spec({"/bin/nope"}));
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kNotFound, "exec /bin/nope: No such file or directory"));
  EXPECT_THAT(Start(Spec({"nope"})),
              StatusIs(absl::StatusCode::kNotFound, "exec nope: No such file or directory"));
  EXPECT_FALSE(RecordOnDisk());
  EXPECT_FALSE(PathExists(TaskDir() + "/control.sock"));
}

TEST_F(Program, AProgramInLocalIsFoundByName) {
  ASSERT_OK(WriteFileAtomic(Local("tool"), "#!/bin/sh\nexit 5\n", 0755));
  ASSERT_OK(Start(Spec({"tool"})));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 5);
}

TEST_F(Program, ABrokenSandboxFailsTheStartWithOneSentence) {
  pb::LaunchSpec spec = Spec({"sleep", "1"});
  pb::MountSpec& mount = *spec.mutable_sandbox()->add_mounts();
  mount.set_kind(pb::MountSpec::BIND);
  mount.set_source("/does/not/exist");
  mount.set_target("/mnt");
  EXPECT_THAT(Start(spec),
              StatusIs(absl::StatusCode::kNotFound, StartsWith("sandbox: mount /mnt")));
  pb::LaunchSpec bad_dir = Spec({"sleep", "1"});
  bad_dir.mutable_program()->set_work_dir("/nowhere");
  EXPECT_THAT(Start(bad_dir), StatusIs(absl::StatusCode::kNotFound,
                                       "work_dir /nowhere: No such file or directory"));
  pb::LaunchSpec no_log = Spec({"sleep", "1"});
  no_log.mutable_output()->set_stdout_path("/does/not/exist");
  EXPECT_THAT(Start(no_log), StatusIs(absl::StatusCode::kNotFound,
                                      "stdout: open /does/not/exist: No such file or directory"));
}

TEST_F(Program, ANewSpawnerMakesATemplateOfItsOwn) {
  ASSERT_OK(Start(Shell("test -e /usr/bin/env && echo first")));
  ASSERT_TRUE(watcher().WaitExit());
  EXPECT_EQ(Stdout(), "first\n");
  const pid_t old = spawner().pid();
  ASSERT_EQ(::kill(old, SIGKILL), 0);
  ASSERT_TRUE(Eventually([&] { return !ProcessAlive(old); }));
  ASSERT_OK(Start(Shell("test -e /usr/bin/env && echo second")));
  ASSERT_TRUE(watcher().WaitExit());
  EXPECT_NE(spawner().pid(), old);
  EXPECT_EQ(Stdout(), "first\nsecond\n");
}

TEST_F(Program, ATemplateThatCannotBeBuiltFailsTheStart) {
  pb::LaunchSpec spec = Shell("true");
  pb::MountSpec& mount = *spec.mutable_sandbox()->add_mounts();
  mount.set_shared(true);
  mount.set_source("/does/not/exist");
  mount.set_target("/opt/x");
  EXPECT_THAT(Start(spec), StatusIs(absl::StatusCode::kNotFound,
                                    StartsWith("sandbox: template: mount /opt/x: open ")));
  ASSERT_OK(Start(Shell("true")));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Program, DirectoriesAreMadeByTheTasksUser) {
  pb::LaunchSpec spec = Shell("stat -c %u a/b");
  spec.mutable_program()->add_make_dirs("/local/a/b");
  ASSERT_OK(Start(spec));
  ASSERT_TRUE(watcher().WaitExit());
  EXPECT_EQ(Stdout(), "20001\n");
  pb::LaunchSpec refused = Shell("true");
  refused.mutable_program()->add_make_dirs("/usr/a");
  const auto status = Start(refused);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.status().message()), HasSubstr("/usr/a"));
}

TEST_F(Program, TheArgumentsFileIsReadableAndFixed) {
  pb::LaunchSpec spec = Shell(
      "cat /run/jenkins-agent/args; rm -f /run/jenkins-agent/args;"
      "echo x 2>/dev/null >/run/jenkins-agent/args || echo refused");
  spec.mutable_program()->set_arguments_file("secret\n");
  ASSERT_OK(Start(spec));
  ASSERT_TRUE(watcher().WaitExit());
  EXPECT_EQ(Stdout(), "secret\nrefused\n");
}

TEST_F(Program, TheSecondStartInTheSameDirectoryWorks) {
  ASSERT_OK(Start(Shell("exit 1")));
  ASSERT_TRUE(watcher().WaitExit());
  DropConnection();
  ASSERT_OK(Start(Shell("exit 2")));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 2);
}

// The processes that stand by for a next task of this spawner: a supervisor, its child and pid 1.
std::vector<int> StandingBy(pid_t spawner) {
  const auto children_of = [](int parent) {
    std::vector<int> children;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      int pid = 0;
      if (!absl::SimpleAtoi(entry.path().filename().native(), &pid)) continue;
      const std::string status = ReadFile(entry.path() / "status").value_or("");
      if (!absl::StartsWith(status, "Name:\tja-standby\n")) continue;
      if (absl::StrContains(status, absl::StrCat("\nPPid:\t", parent, "\n"))) {
        children.push_back(pid);
      }
    }
    return children;
  };
  std::vector<int> found = children_of(spawner);
  if (found.size() != 1) return {};
  const std::vector<int> init = children_of(found[0]);
  found.insert(found.end(), init.begin(), init.end());
  return found.size() == 2 ? found : std::vector<int>();
}

TEST_F(Program, TheNextTaskGetsTheProcessesThatStandBy) {
  EXPECT_THAT(StandingBy(spawner().pid()), testing::IsEmpty());
  ASSERT_OK(Start(Shell("exit 1")));
  std::vector<int> ready;
  ASSERT_TRUE(Eventually([&] { return !(ready = StandingBy(spawner().pid())).empty(); }));
  ASSERT_TRUE(watcher().WaitExit());
  DropConnection();
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Shell("read forever; exit 2")));
  EXPECT_EQ(status.supervisor_pid(), ready[0]);
  EXPECT_EQ(status.init_pid(), ready[1]);
  EXPECT_TRUE(watcher().WaitExit());
}

TEST_F(Program, WhoeverIsKilledWhileStandingByIsReplaced) {
  for (const size_t victim : {0, 1}) {
    ASSERT_OK(Start(Shell("exit 1")));
    std::vector<int> ready;
    ASSERT_TRUE(Eventually([&] { return !(ready = StandingBy(spawner().pid())).empty(); }));
    ASSERT_TRUE(watcher().WaitExit());
    DropConnection();
    ASSERT_EQ(::kill(ready[victim], SIGKILL), 0);
    ASSERT_TRUE(Eventually([&] { return !ProcessAlive(ready[0]) && !ProcessAlive(ready[1]); }));
    ASSERT_OK(Start(Shell("exit 9")));
    const auto exit = watcher().WaitExit();
    ASSERT_TRUE(exit);
    EXPECT_EQ(exit->exit_code(), 9);
    DropConnection();
  }
}

TEST_F(Program, WhoStandsByEndsWithTheSpawner) {
  ASSERT_OK(Start(Shell("exit 1")));
  std::vector<int> ready;
  ASSERT_TRUE(Eventually([&] { return !(ready = StandingBy(spawner().pid())).empty(); }));
  ASSERT_EQ(::kill(spawner().pid(), SIGKILL), 0);
  EXPECT_TRUE(Eventually([&] { return !ProcessAlive(ready[0]) && !ProcessAlive(ready[1]); }));
  EXPECT_TRUE(watcher().WaitExit());
}

TEST_F(Program, SignalsReachItAndADeathBySignalIsRecorded) {
  ASSERT_OK(
      Start(Shell("trap 'echo usr1; kill -9 $$' USR1; echo ready; while :; do sleep 1; done")));
  ASSERT_TRUE(Eventually([this] { return Stdout() == "ready\n"; }));
  EXPECT_OK(watcher().Signal(SIGUSR1));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 137);
  EXPECT_EQ(exit->signal(), SIGKILL);
  EXPECT_FALSE(exit->oom_killed());
  EXPECT_EQ(Stdout(), "ready\nusr1\n");
}

TEST_F(Program, StopEndsItWithItsOwnExitCode) {
  ASSERT_OK_AND_ASSIGN(
      const pb::TaskStatus status,
      Start(Shell("trap 'exit 143' TERM; echo ready; while :; do sleep 0.1; done")));
  ASSERT_TRUE(Eventually([this] { return Stdout() == "ready\n"; }));
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 143);
  EXPECT_EQ(exit->signal(), 0);
  EXPECT_EQ(exit->message(), "");
  ExpectNothingLeft(status);
}

TEST_F(Program, WhoIgnoresTheStopIsKilledWithEverythingItStarted) {
  ASSERT_OK_AND_ASSIGN(
      const pb::TaskStatus status,
      Start(Shell("trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 98765' &) ; echo ready;"
                  "while :; do sleep 1; done")));
  ASSERT_TRUE(Eventually([this] { return Stdout() == "ready\n"; }));
  EXPECT_OK(watcher().Stop(SIGTERM, std::chrono::milliseconds(200)));
  EXPECT_EQ(watcher().Status().state(), pb::STOPPING);
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 137);
  EXPECT_EQ(exit->signal(), SIGKILL);
  EXPECT_EQ(exit->message(), "");
  ExpectNothingLeft(status);  // the cgroup could not be removed with a process inside
}

TEST_F(Program, ItsDaemonsEndWithIt) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Shell("(setsid sleep 98765 &); exit 0")));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 0);
  ExpectNothingLeft(status);
}

TEST_F(Program, ThePidsLimitHolds) {
  pb::LaunchSpec spec = Shell("for i in $(seq 40); do sleep 1000 & done; echo all");
  spec.mutable_cgroup()->set_pids(10);
  ASSERT_OK(Start(spec));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_NE(exit->exit_code(), 0);
  EXPECT_THAT(Stderr(), HasSubstr("fork"));
}

// Fills memory beyond any limit of these tests.
constexpr char kMemoryBomb[] = "tail /dev/zero";

TEST_F(Program, AnOutOfMemoryKillIsRecordedWithItsFigures) {
  pb::LaunchSpec spec = Spec({"tail", "/dev/zero"});
  spec.mutable_cgroup()->set_memory_bytes(32 << 20);
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->signal(), SIGKILL);
  EXPECT_TRUE(exit->oom_killed());
  EXPECT_EQ(exit->message(),
            absl::StrCat("out of memory: the kernel killed the task's program (pid ",
                         status.payload_pid(), "); limit 32 MiB, peak 32 MiB"));
}

TEST_F(Program, AChildThatIsKilledForMemoryIsNamedAndTheTaskGoesOn) {
  pb::LaunchSpec spec =
      Shell(absl::StrCat("until [ -e go ]; do sleep 0.05; done; ", kMemoryBomb,
                         "; echo $? >killed; until [ -e end ]; do sleep 0.05; done; kill -9 $$"));
  spec.mutable_cgroup()->set_memory_bytes(32 << 20);
  ASSERT_OK(Start(spec));
  ASSERT_GT(watcher().Status().payload_pid(), 0);  // from now on events come
  ASSERT_OK(WriteFileAtomic(Local("go"), ""));
  EXPECT_TRUE(watcher().WaitEvent("out of memory: the kernel killed tail (pid "));
  EXPECT_TRUE(watcher().WaitEvent("; limit 32 MiB, peak 32 MiB; the task goes on"));
  EXPECT_TRUE(Eventually([this] { return LocalContent("killed") == "137\n"; }));
  EXPECT_EQ(watcher().Status().state(), pb::RUNNING);
  ASSERT_OK(WriteFileAtomic(Local("end"), ""));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  // A kill by somebody else, long after the child's.
  EXPECT_EQ(exit->signal(), SIGKILL);
  EXPECT_FALSE(exit->oom_killed());
  EXPECT_EQ(exit->message(), "");
}

// As on a busy node: the supervisor gets no turn until all is over. The kernel's log has ten kills
// of the whole host in five seconds, and other tests have theirs.
TEST_F(Program, AKillThatNobodySawIsNamedByTheKernelsLog) {
  if (!OpenFile("/dev/kmsg", O_RDONLY).ok()) GTEST_SKIP() << "needs the kernel's log";
  pb::LaunchSpec spec = Shell(absl::StrCat("rm -f killed; until [ -e go ]; do sleep 0.05; done; ",
                                           kMemoryBomb, "; echo $? >killed; exec sleep 1000"));
  spec.mutable_cgroup()->set_memory_bytes(32 << 20);
  bool named = false;
  for (int attempt = 0; attempt < 10 && !named; ++attempt) {
    ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
    ASSERT_GT(watcher().Status().payload_pid(), 0);  // from now on events come
    ASSERT_EQ(::kill(status.supervisor_pid(), SIGSTOP), 0);
    ASSERT_OK(WriteFileAtomic(Local("go"), ""));
    EXPECT_TRUE(Eventually([this] { return LocalContent("killed") == "137\n"; }));
    ASSERT_EQ(::kill(status.supervisor_pid(), SIGCONT), 0);
    const std::string event = watcher().EventWith("out of memory: the kernel killed ");
    named = absl::StrContains(event, "killed tail (pid ");
    if (!named) {
      EXPECT_THAT(event, HasSubstr("a process that ended before it could be named"));
    }
    EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
    ASSERT_TRUE(watcher().WaitExit());
    DropConnection();
    std::filesystem::remove(Local("go"));
    if (!named) std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  EXPECT_TRUE(named);
}

TEST_F(Program, AShellThatEndsAsItsKilledChildDidIsOutOfMemoryToo) {
  pb::LaunchSpec spec = Shell(absl::StrCat(kMemoryBomb, "; exit $?"));
  spec.mutable_cgroup()->set_memory_bytes(32 << 20);
  ASSERT_OK(Start(spec));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 137);
  EXPECT_EQ(exit->signal(), 0);
  EXPECT_TRUE(exit->oom_killed());
  EXPECT_THAT(exit->message(), StartsWith("out of memory: the kernel killed "));
  EXPECT_THAT(exit->message(), EndsWith("; after it the task's program exited with code 137"));
}

TEST_F(Program, TheSandboxDiesWithItsSupervisor) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  ASSERT_EQ(::kill(status.supervisor_pid(), SIGKILL), 0);
  EXPECT_TRUE(watcher().WaitLost());
  EXPECT_TRUE(Eventually([&] { return !ProcessAlive(status.payload_pid()); }));
  EXPECT_TRUE(Eventually([&] { return !ProcessAlive(status.init_pid()); }));
  EXPECT_FALSE(RecordOnDisk());
  DropConnection();
  ExpectAnUndisturbedStart(status);
}

TEST_F(Program, TheDeathOfPidOneIsRecorded) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  ASSERT_EQ(::kill(status.init_pid(), SIGKILL), 0);
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->signal(), SIGKILL);
  EXPECT_THAT(exit->message(), HasSubstr("pid 1 of the sandbox"));
  ExpectNothingLeft(status);
}

TEST_F(Program, ItOutlivesThePluginsConnectionAndTheSpawner) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  DropConnection();
  ASSERT_EQ(::kill(spawner().pid(), SIGKILL), 0);
  auto reconnected = Reconnect();
  ASSERT_TRUE(reconnected);
  EXPECT_EQ(reconnected->Status().payload_pid(), status.payload_pid());
  EXPECT_TRUE(ProcessAlive(status.payload_pid()));
  EXPECT_OK(reconnected->Stop(SIGTERM, kTestDeadline));
  const auto exit = reconnected->WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 143);
  EXPECT_EQ(exit->signal(), SIGTERM);
  reconnected->Close();
  EXPECT_TRUE(Eventually([&] { return !ProcessAlive(status.supervisor_pid()); }));
  // A spawner that died is started anew.
  ASSERT_OK(Start(Shell("exit 9")));
  EXPECT_TRUE(watcher().WaitExit());
}

TEST_F(Program, AStartThatNobodyTookUpEnds) {
  ASSERT_OK_AND_ASSIGN(const Fd connection, Spawn(Shell("sleep 60")));
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status,
                       AwaitStart(connection.get(), std::chrono::seconds(30)));
  const Fd supervisor(static_cast<int>(::syscall(SYS_pidfd_open, status.supervisor_pid(), 0)));
  ASSERT_TRUE(supervisor.valid());
  ::shutdown(connection.get(), SHUT_RDWR);
  pollfd end = {supervisor.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&end, 1, 30'000), 1);
  ExpectNothingLeft(status);
}

TEST_F(Program, AnExitWhileNobodyIsConnectedIsOnDisk) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status,
                       Start(Shell("until [ -e go ]; do sleep 0.05; done; exit 4")));
  DropConnection();
  ASSERT_OK(WriteFileAtomic(Local("go"), ""));
  ASSERT_TRUE(Eventually([&] { return !ProcessAlive(status.supervisor_pid()); }));
  const auto record = RecordOnDisk();
  ASSERT_TRUE(record);
  EXPECT_EQ(record->exit_code(), 4);
  ExpectNothingLeft(status);
  EXPECT_THAT(ConnectToSupervisor(TaskDir()), StatusIs(absl::StatusCode::kUnavailable, testing::_));
}

}  // namespace
}  // namespace jenkins_agent
