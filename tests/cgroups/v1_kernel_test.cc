// What only v1's controllers do. The rest is in kernel_test.cc.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "cgroups/files.h"
#include "tests/cgroups/kernel_support.h"

namespace jenkins_agent::cgroups {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class V1KernelTest : public KernelTest {
 protected:
  void SetUp() override {
    SetUpFor(Version::kV1);
    for (const char* controller : {"freezer", "memory", "cpu", "cpuacct", "pids", "cpuset"}) {
      REQUIRES_CONTROLLER(controller);
    }
  }
  std::string Dir(const std::string& controller) const {
    return hierarchy_.ControllerPath(controller) + "/nomad/" + name_;
  }
  std::string ReadIn(const std::string& controller, const std::string& file) const {
    const absl::StatusOr<std::string> text = ReadFileIn(Dir(controller), file);
    return text.ok() ? *text : text.status().ToString();
  }
};

TEST_F(V1KernelTest, ATaskHasADirectoryOfEachController) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  EXPECT_THAT(cgroup.dirs(),
              ElementsAre(Dir("freezer"), Dir("memory"), Dir("cpu"), Dir("cpuacct"), Dir("pids")));
  EXPECT_EQ(Leftovers().size(), 5u);
  ASSERT_OK(cgroup.Remove());
  EXPECT_THAT(Leftovers(), IsEmpty());
}

TEST_F(V1KernelTest, AFrozenDirectoryIsThawedBeforeANewStart) {
  ASSERT_OK_AND_ASSIGN(const Cgroup first, Create());
  Child leftover([&first](int ready) { return first.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(leftover.WaitReady());
  ASSERT_OK(WriteFileIn(Dir("freezer"), "freezer.state", "FROZEN"));

  ASSERT_OK_AND_ASSIGN(const Cgroup second, Create({.memory_bytes = 32 << 20}));
  EXPECT_TRUE(WIFSIGNALED(leftover.Wait()));
  Child child([&second](int ready) { return second.Enter().ok() ? Idle(ready) : 1; });
  EXPECT_TRUE(child.WaitReady());
  ASSERT_OK(second.KillAll(kLimit));
  EXPECT_EQ(ReadIn("freezer", "freezer.state"), "THAWED");
  EXPECT_OK(first.Remove());
}

TEST_F(V1KernelTest, LimitsAreWrittenAndTakenBack) {
  ASSERT_OK_AND_ASSIGN(
      const Cgroup cgroup,
      Create(
          {.memory_bytes = 64 << 20, .memory_soft_bytes = 32 << 20, .cpu_shares = 1, .pids = 12}));
  EXPECT_EQ(ReadIn("memory", "memory.limit_in_bytes"), "67108864");
  EXPECT_EQ(ReadIn("memory", "memory.soft_limit_in_bytes"), "33554432");
  EXPECT_EQ(ReadIn("memory", "memory.swappiness"), "0");
  EXPECT_EQ(ReadIn("cpu", "cpu.shares"), "2");
  EXPECT_EQ(ReadIn("pids", "pids.max"), "12");

  ASSERT_OK_AND_ASSIGN(const Cgroup again, Create());
  EXPECT_THAT(again.dirs_made(), IsEmpty());
  EXPECT_EQ(ReadIn("memory", "memory.limit_in_bytes"), "9223372036854771712");
  EXPECT_EQ(ReadIn("memory", "memory.soft_limit_in_bytes"), "9223372036854771712");
  EXPECT_EQ(ReadIn("cpu", "cpu.shares"), "1024");
  EXPECT_EQ(ReadIn("pids", "pids.max"), "max");
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, ATaskNeverSwaps) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.memory_bytes = 64 << 20}));
  if (::access((Dir("memory") + "/memory.memsw.limit_in_bytes").c_str(), F_OK) != 0) {
    GTEST_SKIP() << "needs a kernel that accounts swap";
  }
  EXPECT_EQ(ReadIn("memory", "memory.memsw.limit_in_bytes"), "67108864");
  // More, less and no memory in the same directory.
  ASSERT_OK(Create({.memory_bytes = 128 << 20}));
  EXPECT_EQ(ReadIn("memory", "memory.memsw.limit_in_bytes"), "134217728");
  ASSERT_OK(Create({.memory_bytes = 32 << 20}));
  EXPECT_EQ(ReadIn("memory", "memory.memsw.limit_in_bytes"), "33554432");
  ASSERT_OK(Create());
  EXPECT_EQ(ReadIn("memory", "memory.memsw.limit_in_bytes"), "9223372036854771712");
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, AnIoWeightHasADirectoryThatGoesAgain) {
  const absl::StatusOr<Cgroup> cgroup = Create({.io_weight = 300});
  if (!cgroup.ok()) GTEST_SKIP() << "needs weights for disk I/O: " << cgroup.status();
  EXPECT_EQ(ReadIn("blkio", "blkio.bfq.weight"), "300");
  Child child([&cgroup](int ready) { return cgroup->Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  EXPECT_EQ(ReadIn("blkio", "cgroup.procs"), absl::StrCat(child.pid()));
  ASSERT_OK(cgroup->KillAll(kLimit));
  ASSERT_OK(cgroup->Remove());
  EXPECT_THAT(Leftovers(), IsEmpty());
}

TEST_F(V1KernelTest, ALimitBelowWhatAnEarlierStartLeftIsRefusedInWords) {
  ASSERT_OK_AND_ASSIGN(const Cgroup first, Create());
  const Fd file(::memfd_create("left", MFD_CLOEXEC));  // held by this process, charged to the child
  Child child([&](int) {
    const std::string block(32 << 20, 'x');
    if (!first.Enter().ok()) return 1;
    return ::write(file.get(), block.data(), block.size()) > 0 ? 0 : 2;
  });
  ASSERT_EQ(child.Wait(), 0);
  EXPECT_THAT(Create({.memory_bytes = 4 << 20}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr(name_ + ": memory.limit_in_bytes: 4194304 bytes are less")));
  EXPECT_OK(first.Remove());
}

// As pid 1 of a sandbox does, which is cloned before there are cgroups.
TEST_F(V1KernelTest, WhoIsHandedTheDoorsNeedsNothingElse) {
  ASSERT_OK_AND_ASSIGN(const Cgroup made, Create());
  const Cgroup::Doors doors = made.doors();
  std::vector<Fd> fds;
  for (const int fd : doors.fds) {
    ASSERT_OK_AND_ASSIGN(Fd copy, Duplicate(fd));
    fds.push_back(std::move(copy));
  }
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup,
                       Cgroup::FromDoors(hierarchy_, doors.names, std::move(fds)));
  Child child([&](int ready) { return cgroup.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  EXPECT_THAT(*made.Members(), ElementsAre(child.pid()));
  EXPECT_OK(made.KillAll(kLimit));
  EXPECT_OK(made.Remove());
}

TEST_F(V1KernelTest, AForkedChildIsNotInsideUntilItEnters) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  ASSERT_OK_AND_ASSIGN(const Cgroup::Forked forked, cgroup.Fork());
  if (forked.pid == 0) ::_exit(forked.inside ? 1 : 0);
  int status = 0;
  ASSERT_EQ(::waitpid(forked.pid, &status, 0), forked.pid);
  EXPECT_EQ(status, 0);
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, ReservedCoresAreTheTasksOwn) {
  // What Nomad prepares, under a name of this test.
  const std::string cpuset = hierarchy_.ControllerPath("cpuset");
  const std::string parent = absl::StrCat(cpuset, "/jenkins-agent-test-", ::getpid());
  std::vector<std::string> made;
  ASSERT_OK(MakeDirsBelow(cpuset, parent, &made));
  ASSERT_OK_AND_ASSIGN(const std::string cores, ReadFileIn(cpuset, "cpuset.cpus"));
  ASSERT_OK_AND_ASSIGN(const std::string mems, ReadFileIn(cpuset, "cpuset.mems"));

  // Before Nomad has written the cores.
  const auto create = [&](const Limits& limits, const std::string& cpuset_cgroup) {
    return Cgroup::Create(hierarchy_, {.name = name_, .cpuset_cgroup = cpuset_cgroup}, limits);
  };
  EXPECT_THAT(create({}, parent),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has no cores yet")));
  EXPECT_NE(::access(Dir("memory").c_str(), F_OK), 0) << "a failed Create undoes its directories";

  ASSERT_OK(WriteFileIn(parent, "cpuset.cpus", cores));
  ASSERT_OK(WriteFileIn(parent, "cpuset.mems", mems));
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, create({.cpuset_cpus = "0"}, parent + "/" + name_));
  Child child([&cgroup](int ready) { return cgroup.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(child.pid(), sizeof(allowed), &allowed), 0);
  EXPECT_EQ(CPU_COUNT(&allowed), 1);
  EXPECT_TRUE(CPU_ISSET(0, &allowed));
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
  EXPECT_EQ(::rmdir(parent.c_str()), 0);
}

}  // namespace
}  // namespace jenkins_agent::cgroups
