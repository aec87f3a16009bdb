// The life of a task on a real cgroup2, also the one without controllers that hybrid hosts have
// beside v1. Limits on v2 need a v2 host.
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "tests/cgroups/kernel_support.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent::cgroups {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr milliseconds kLimit(20000);

class V2KernelTest : public testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    for (const char* root : {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"}) {
      absl::StatusOr<Hierarchy> found = Hierarchy::Detect("/proc", root);
      if (found.ok() && found->version() == Version::kV2) hierarchy_ = *found;
    }
    if (hierarchy_.version() != Version::kV2) GTEST_SKIP() << "needs a cgroup2 mount";
    parent_ = absl::StrCat(hierarchy_.root(), "/jenkins-agent-test-", ::getpid());
  }
  absl::StatusOr<Cgroup> Create(const Limits& limits = {}) const {
    const std::string name = absl::StrCat("test-", ::getpid(), ".task");
    return Cgroup::Create(hierarchy_,
                          {.name = name, .cpuset_cgroup = parent_ + "/" + name + ".scope"}, limits);
  }
  Hierarchy hierarchy_;
  std::string parent_;
};

TEST_F(V2KernelTest, ALifeLeavesNothingBehind) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  EXPECT_THAT(cgroup.dirs_made(), ElementsAre(parent_, cgroup.dirs().front()));
  Child child([&cgroup](int ready) { return cgroup.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  EXPECT_THAT(*cgroup.Members(), ElementsAre(child.pid()));
  EXPECT_THAT(cgroup.Remove(), Not(IsOk()));

  ASSERT_OK(cgroup.KillAll(kLimit));
  EXPECT_THAT(*cgroup.Members(), IsEmpty());
  const int status = child.Wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  ASSERT_OK(cgroup.Remove());
  ASSERT_OK(cgroup.Remove());
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), parent_), IsEmpty());
}

TEST_F(V2KernelTest, AChildLeavesAgain) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  Child child([&cgroup](int ready) {
    return cgroup.Enter().ok() && cgroup.Leave().ok() ? Idle(ready) : 1;
  });
  ASSERT_TRUE(child.WaitReady());
  EXPECT_THAT(*cgroup.Members(), IsEmpty());
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, CloneStartsAChildInside) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  ASSERT_OK_AND_ASSIGN(const int fd, cgroup.clone_into_fd());
  clone_args args = {};
  args.flags = CLONE_INTO_CGROUP;
  args.exit_signal = SIGCHLD;
  args.cgroup = static_cast<uint64_t>(fd);
  const pid_t pid = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof(args)));
  if (pid == 0) {
    while (true) ::pause();
  }
  ASSERT_GT(pid, 0);
  EXPECT_THAT(*cgroup.Members(), ElementsAre(pid));
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_EQ(::waitpid(pid, nullptr, 0), pid);
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, LeftoversAreEndedBeforeANewStart) {
  ASSERT_OK_AND_ASSIGN(const Cgroup first, Create());
  Child child([&first](int ready) { return first.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  ASSERT_OK_AND_ASSIGN(const Cgroup second, Create());
  EXPECT_TRUE(WIFSIGNALED(child.Wait()));
  EXPECT_THAT(second.dirs_made(), IsEmpty());
  EXPECT_OK(second.Remove());
  EXPECT_OK(first.Remove());
}

TEST_F(V2KernelTest, ALimitWhoseControllerIsNotEnabledFails) {
  if (hierarchy_.Has("pids")) GTEST_SKIP() << "needs a cgroup2 without the controller pids";
  EXPECT_THAT(Create({.pids = 5}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("pids.max: controller 'pids' is not enabled")));
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), parent_), IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent::cgroups
