// Payloads that go on attacking: pid 1, the supervisor, the launches beside them, the host's
// limits.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/process.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class Havoc : public SupervisorTest {
 protected:
  pb::LaunchSpec Attack(const std::string& how) {
    fs::copy_file(HAVOC, Local("havoc"));
    return Spec({"/local/havoc", how});
  }
  // Asks for `argv` beside the payload; the connection is the session.
  Fd StartBeside(const std::vector<std::string>& argv) {
    absl::StatusOr<Fd> connection = ConnectToSupervisor(TaskDir());
    EXPECT_OK(connection);
    pb::ControlRequest request;
    request.set_sequence(1);
    for (const std::string& argument : argv) request.mutable_exec()->add_argv(argument);
    EXPECT_OK(SendPacket(connection->get(), request.SerializeAsString()));
    return *std::move(connection);
  }
  // An empty one when none came.
  pb::ControlReply ReplyOf(const Fd& session) {
    pb::ControlReply reply;
    pollfd answer = {session.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&answer, 1, kTestDeadline.count() * 1000), 1) << "no answer";
    const absl::StatusOr<Packet> packet = ReceivePacket(session.get());
    EXPECT_TRUE(packet.ok() && reply.ParseFromString(packet->data)) << packet.status();
    return reply;
  }
  // Of the session's program; "" when the answer did not come.
  std::string OutputOf(const Fd& session) {
    pollfd answer = {session.get(), POLLIN, 0};
    if (::poll(&answer, 1, kTestDeadline.count() * 1000) != 1) return "";
    const absl::StatusOr<Packet> packet = ReceivePacket(session.get());
    if (!packet.ok() || packet->fds.size() != 3) return "";
    return ReadAll(packet->fds[1].get(), 1 << 20).value_or("");
  }
  void ExpectItEndsAndLeavesNothing(const pb::TaskStatus& status) {
    EXPECT_OK(watcher().Stop(SIGTERM, std::chrono::milliseconds(100)));
    const auto exit = watcher().WaitExit();
    ASSERT_TRUE(exit);
    EXPECT_NE(exit->signal(), 0);
    EXPECT_EQ(exit->message(), "");
    ExpectNothingLeft(status);
  }
  // In the cgroup, or a child of pid 1's on its way there (proc(5), /proc/PID/task/TID/children).
  bool SomebodyIsStopped(const pb::TaskStatus& status) {
    const std::string init = absl::StrCat("/proc/", status.init_pid());
    const auto children =
        ReadFile(absl::StrCat(init, "/task/", status.init_pid(), "/children")).value_or("");
    for (absl::string_view pid :
         absl::StrSplit(absl::StrCat(children, CgroupFile(status, "cgroup.procs")),
                        absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
      pid_t number;
      if (absl::SimpleAtoi(pid, &number) && ProcessStopped(number)) return true;
    }
    return false;
  }
  // Of the task's directory in the hierarchy with this file.
  std::string CgroupFile(const pb::TaskStatus& status, const std::string& name) {
    for (const std::string& dir : status.cgroup_dirs()) {
      if (PathExists(dir + "/" + name)) return ReadFile(dir + "/" + name).value_or("");
    }
    return "";
  }
};

// 20
TEST_F(Havoc, KillingAllLeavesPidOneAndTheHost) {
  ASSERT_OK(Start(Shell("sleep 1000 & kill -9 -1; echo alive")));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 0);
  EXPECT_EQ(exit->message(), "");
  EXPECT_EQ(Stdout(), "alive\n");
}

// 39
TEST_F(Havoc, AForkBombStaysInItsLimitAndTheSupervisorAnswers) {
  pb::LaunchSpec spec = Attack("bomb");
  spec.mutable_cgroup()->set_pids(200);
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
  EXPECT_TRUE(Eventually([&] { return CgroupFile(status, "pids.current") == "200\n"; }));
  EXPECT_EQ(watcher().Status().state(), pb::RUNNING);
  EXPECT_TRUE(ProcessAlive(status.init_pid()));
  ExpectItEndsAndLeavesNothing(status);
}

// 40
TEST_F(Havoc, OnlyThePayloadIsCharged) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  for (const std::string& dir : status.cgroup_dirs()) {
    if (!PathExists(dir + "/memory.limit_in_bytes") && !PathExists(dir + "/pids.max")) continue;
    ASSERT_OK_AND_ASSIGN(const std::string processes, ReadFile(dir + "/cgroup.procs"));
    EXPECT_THAT(processes, HasSubstr(absl::StrCat(status.payload_pid(), "\n")));
    EXPECT_THAT(processes, Not(HasSubstr(absl::StrCat(status.supervisor_pid(), "\n"))));
    EXPECT_THAT(processes, Not(HasSubstr(absl::StrCat(status.init_pid(), "\n"))));
  }
  ExpectItEndsAndLeavesNothing(status);
}

// 40
TEST_F(Havoc, AFloodOfThePageCacheIsReclaimed) {
  pb::LaunchSpec spec = Shell("head -c 200000000 /dev/zero >flood && rm flood && echo written");
  spec.mutable_cgroup()->set_memory_bytes(32 << 20);
  ASSERT_OK(Start(spec));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_FALSE(exit->oom_killed());
  EXPECT_EQ(Stdout(), "written\n") << Stderr();
}

// Who is there before its exec, be it a copy of pid 1 or an entrant.
class HavocBeforeExec : public Havoc, public testing::WithParamInterface<bool> {
 protected:
  pb::LaunchSpec Attack(const std::string& how) {
    pb::LaunchSpec spec = Havoc::Attack(how);
    if (GetParam()) spec.mutable_user()->set_uid(0);
    return spec;
  }
};
INSTANTIATE_TEST_SUITE_P(As, HavocBeforeExec, testing::Bool(), [](const auto& kind) {
  return std::string(kind.param ? "Root" : "User");
});

// spike.md 0.2: a process of the task's user may stop the launch child, which pid 1 must survive.
TEST_P(HavocBeforeExec, WhoHoldsTheLaunchesBesideHoldsNeitherPidOneNorTheStop) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Attack("hold")));
  ASSERT_TRUE(Eventually([this] { return Stdout() == "holding\n"; }));
  std::vector<Fd> sessions;
  for (int i = 0; i < 8; ++i) sessions.push_back(StartBeside({"sleep", "1000"}));
  EXPECT_TRUE(Eventually([&] { return SomebodyIsStopped(status); }));
  EXPECT_EQ(watcher().Status().state(), pb::RUNNING);
  sessions.clear();  // which kills them, stopped or not
  EXPECT_TRUE(Eventually([&] { return CgroupFile(status, "pids.current") == "1\n"; }));
  EXPECT_OK(watcher().Signal(SIGCONT));
  ExpectItEndsAndLeavesNothing(status);
}

TEST_F(Havoc, AnExecThatIsHeldForEverIsToldSoAndTheTaskGoesOn) {
  pb::LaunchSpec spec = Attack("hold");
  spec.mutable_user()->set_uid(0);  // who may stop pid 1's copies from their first moment on
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
  ASSERT_TRUE(Eventually([this] { return Stdout() == "holding\n"; }));
  Fd session;
  pb::ControlReply reply;
  // Some get past their exec before they are stopped.
  EXPECT_TRUE(Eventually([&] {
    session = StartBeside({"sleep", "1000"});
    reply = ReplyOf(session);
    return !reply.error().empty();
  }));
  EXPECT_THAT(reply.error(), HasSubstr("exec did not happen within 10 s"));
  // While the client is still there.
  EXPECT_TRUE(Eventually([&] { return CgroupFile(status, "pids.current") == "1\n"; }));
  EXPECT_EQ(watcher().Status().state(), pb::RUNNING);
  ExpectItEndsAndLeavesNothing(status);
}

// A launch child is a copy of pid 1 until its exec, and already the task's user.
TEST_P(HavocBeforeExec, NobodyLooksIntoALaunch) {
  ASSERT_OK(Start(Attack("spy")));
  ASSERT_TRUE(Eventually([this] { return Stdout() == "spying\n"; }));
  for (int i = 0; i < 30; ++i) EXPECT_EQ(OutputOf(StartBeside({"echo", "out"})), "out\n") << i;
  ASSERT_OK(WriteFileAtomic(Local("end"), ""));
  ASSERT_TRUE(watcher().WaitExit());
  EXPECT_THAT(Stdout(), Not(HasSubstr("leak")));
  // It was there in time.
  EXPECT_THAT(Stdout(), HasSubstr("refused "));
  EXPECT_THAT(Stdout(), Not(HasSubstr("refused 0\n")));
}

// 49
TEST_F(Havoc, TheControlSocketIsRootsAlone) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  EXPECT_EQ(fs::status(TaskDir() + "/control.sock").permissions() & fs::perms(0777),
            fs::perms(0600));
  ExpectItEndsAndLeavesNothing(status);
}

}  // namespace
}  // namespace jenkins_agent
