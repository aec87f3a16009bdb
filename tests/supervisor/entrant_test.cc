// Launches after the first, where pid 1 can bear nobody in the task's cgroup.
#include <fcntl.h>
#include <linux/capability.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "cgroups/hierarchy.h"
#include "driver/base/file.h"
#include "tests/supervisor/cgroup_moves.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;

class Entrants : public SupervisorTest {
 protected:
  void SetUp() override {
    const auto hierarchy = cgroups::Hierarchy::Detect();
    ASSERT_OK(hierarchy);
    if (!hierarchy->namespaces_delegate()) {
      GTEST_SKIP() << "no cgroup2 with nsdelegate here: children of pid 1 need no help";
    }
    SupervisorTest::SetUp();
  }
  void TearDown() override {
    if (!IsSkipped()) SupervisorTest::TearDown();
  }

  // Runs it in a session and returns what it left in /local/out.
  std::string SaidInASession(const std::string& script) {
    sessions_.push_back(Reconnect());
    EXPECT_OK(sessions_.back()->Exec(
        {"/bin/sh", "-c", "{ " + script + "; } >/local/tmp 2>&1; mv /local/tmp /local/out"}));
    EXPECT_TRUE(Eventually([&] { return PathExists(Local("out")); }));
    const std::string said = LocalContent("out");
    ::unlink(Local("out").c_str());
    return said;
  }
  std::string SupervisorsLog() const { return Content("task/supervisor.log"); }

 private:
  std::vector<std::unique_ptr<Watcher>> sessions_;
};

TEST_F(Entrants, AreBornInTheCgroup) {
  const CgroupMoves moves;
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  EXPECT_EQ(SaidInASession("cat /proc/self/cgroup"), "0::/\n");
  EXPECT_EQ(SaidInASession("echo again"), "again\n");
  EXPECT_FALSE(moves.Into(status.cgroup_dirs(0)));
  EXPECT_EQ(SupervisorsLog(), "");
  moves.ExpectThatAMoveIsSeen(status.cgroup_dirs(0));
}

// Somebody with CAP_SYS_PTRACE could look into one that still is as the supervisor.
TEST_F(Entrants, DoNotComeToATaskWithCapabilities) {
  const CgroupMoves moves;
  pb::LaunchSpec spec = Spec({"sleep", "1000"});
  spec.mutable_sandbox()->add_capabilities(CAP_CHOWN);
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
  EXPECT_EQ(SaidInASession("echo in"), "in\n");
  EXPECT_TRUE(moves.Into(status.cgroup_dirs(0)));
}

// What differs between a session and the payload is nothing that confines it.
TEST_F(Entrants, HaveNoMoreThanThePayload) {
  const std::string confinement =
      "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; umask; "
      "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Cpus_allowed:|Umask)' /proc/self/status; "
      "cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup; readlink /proc/self/root; "
      "ls /proc/self/fd | wc -l";
  ASSERT_OK(Start(Shell("{ " + confinement + "; } >tmp; mv tmp payload; exec sleep 1000")));
  ASSERT_TRUE(Eventually([&] { return PathExists(Local("payload")); }));
  const std::string payload = LocalContent("payload");
  EXPECT_THAT(payload, HasSubstr("CapEff:\t0000000000000000"));
  EXPECT_EQ(SaidInASession(confinement), payload);
  EXPECT_EQ(SupervisorsLog(), "");
}

TEST_F(Entrants, EnterTheTasksUserNamespace) {
  pb::LaunchSpec spec = Spec({"sleep", "1000"});
  pb::IdRange& ids = *spec.mutable_user()->add_id_map();
  ids.set_inside(20001);
  ids.set_outside(20001);
  ids.set_count(1);
  ASSERT_OK(Start(spec));
  EXPECT_EQ(SaidInASession("id -u; tr -s ' ' </proc/self/uid_map"), "20001\n 20001 20001 1\n");
  EXPECT_EQ(SupervisorsLog(), "");
}

// Who moves in by itself passes the limit (cgroup-v2.rst, PID).
TEST_F(Entrants, WhereTheJobLeavesNoRoomOneMovesInAsBefore) {
  pb::LaunchSpec spec = Shell("sleep 1000 & sleep 1000 & sleep 1000 & wait");
  spec.mutable_cgroup()->set_pids(4);
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
  ASSERT_TRUE(Eventually(
      [&] { return ReadFile(status.cgroup_dirs(0) + "/pids.current").value_or("") == "4\n"; }));
  const std::unique_ptr<Watcher> session = Reconnect();
  EXPECT_OK(session->Exec({"/bin/sh", "-c", "echo in >/local/out"}));
  EXPECT_TRUE(Eventually([&] { return LocalContent("out") == "in\n"; }));
  EXPECT_THAT(SupervisorsLog(), HasSubstr("no entrant: "));
}

TEST_F(Entrants, OneThatIsHeldUpIsGivenUp) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  const std::string switch_file = status.cgroup_dirs(0) + "/cgroup.freeze";
  const auto freeze = [&](const char* value) {
    const auto file = OpenFile(switch_file, O_WRONLY);
    return file.ok() ? WriteAll(file->get(), value) : file.status();
  };
  ASSERT_OK(freeze("1"));
  const std::unique_ptr<Watcher> session = Reconnect();
  std::thread asking([&] { EXPECT_OK(session->Exec({"touch", "/local/done"})); });
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(SupervisorsLog(), "held up"); }));
  EXPECT_EQ(watcher().Status().state(), pb::RUNNING);  // it answers meanwhile
  ASSERT_OK(freeze("0"));
  asking.join();
  EXPECT_TRUE(Eventually([&] { return PathExists(Local("done")); }));
}

}  // namespace
}  // namespace jenkins_agent
