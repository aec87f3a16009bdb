// What only cgroup2 does, also the one without controllers that hybrid hosts have beside v1. The
// rest is in kernel_test.cc; limits need a v2 host: tests/vm.
#include <gtest/gtest.h>
#include <sched.h>

#include "cgroups/cgroup.h"
#include "cgroups/files.h"
#include "tests/cgroups/kernel_support.h"

namespace jenkins_agent::cgroups {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class V2KernelTest : public KernelTest {
 protected:
  void SetUp() override { SetUpFor(Version::kV2); }
  static std::string ReadIn(const Cgroup& cgroup, const std::string& file) {
    const absl::StatusOr<std::string> text = ReadFileIn(cgroup.dirs().front(), file);
    return text.ok() ? *text : text.status().ToString();
  }
};

TEST_F(V2KernelTest, ATaskHasOneDirectory) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  EXPECT_THAT(cgroup.dirs_made(), ElementsAre(parent_, cgroup.dirs().front()));
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, AForkedChildStartsInside) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  ASSERT_OK_AND_ASSIGN(const Cgroup::Forked forked, cgroup.Fork());
  if (forked.pid == 0) {
    while (true) ::pause();
  }
  EXPECT_TRUE(forked.inside);
  EXPECT_THAT(*cgroup.Members(), ElementsAre(forked.pid));
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_EQ(::waitpid(forked.pid, nullptr, 0), forked.pid);
  EXPECT_OK(cgroup.Remove());
}

// ---- limits: a v2 host ----

TEST_F(V2KernelTest, LimitsAreWrittenAndTakenBack) {
  for (const char* controller : {"memory", "cpu", "cpuset", "pids"}) {
    REQUIRES_CONTROLLER(controller);
  }
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.memory_bytes = 64 << 20,
                                                    .memory_soft_bytes = 32 << 20,
                                                    .cpu_shares = 512,
                                                    .cpu_quota_us = 50'000,
                                                    .cpuset_cpus = "0",
                                                    .pids = 12}));
  EXPECT_EQ(ReadIn(cgroup, "memory.max"), "67108864");
  EXPECT_EQ(ReadIn(cgroup, "memory.low"), "33554432");
  EXPECT_EQ(ReadIn(cgroup, "cpu.weight"), "59");
  EXPECT_EQ(ReadIn(cgroup, "cpu.max"), "50000 100000");
  EXPECT_EQ(ReadIn(cgroup, "cpuset.cpus"), "0");
  EXPECT_EQ(ReadIn(cgroup, "pids.max"), "12");

  ASSERT_OK_AND_ASSIGN(const Cgroup again, Create());
  EXPECT_THAT(again.dirs_made(), IsEmpty());
  EXPECT_EQ(ReadIn(cgroup, "memory.max"), "max");
  EXPECT_EQ(ReadIn(cgroup, "memory.low"), "0");
  EXPECT_EQ(ReadIn(cgroup, "cpu.weight"), "100");
  EXPECT_EQ(ReadIn(cgroup, "cpu.max"), "max 100000");
  EXPECT_EQ(ReadIn(cgroup, "pids.max"), "max");
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, ATaskNeverSwaps) {
  REQUIRES_CONTROLLER("memory");
  const absl::StatusOr<std::string> swaps = ReadFileIn("/proc", "swaps");
  if (!swaps.ok() || swaps->find('\n') == std::string::npos) GTEST_SKIP() << "needs swap space";
  for (const int64_t memory_bytes : {int64_t{32} << 20, int64_t{0}}) {
    ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.memory_bytes = memory_bytes}));
    EXPECT_EQ(ReadIn(cgroup, "memory.swap.max"), "0");
    Child child([&cgroup](int ready) {
      return cgroup.Enter().ok() && UseMemory(16 << 20) == 0 ? Idle(ready) : 1;
    });
    ASSERT_TRUE(child.WaitReady());
    // The kernel is asked for all of it; without swap there is nowhere to put anonymous memory.
    (void)WriteValue(cgroup.dirs().front(), "memory.reclaim", "16M");  // Linux 5.19; else no test
    EXPECT_EQ(cgroup.ReadUsage()->memory_swap_bytes, 0u);
    EXPECT_GE(cgroup.ReadUsage()->memory_rss_bytes.value_or(0), 16u << 20);
    EXPECT_OK(cgroup.KillAll(kLimit));
    EXPECT_OK(cgroup.Remove());
  }
}

// Two that never rest share one core: one of them waits at any time.
TEST_F(V2KernelTest, WhoWaitsForACoreIsTold) {
  REQUIRES_CONTROLLER("cpuset");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.cpuset_cpus = "0"}));
  if (!cgroup.ReadStalls()->cpu_ns.has_value()) GTEST_SKIP() << "needs a kernel with psi=1";
  const auto busy = [&cgroup](int) {
    if (!cgroup.Enter().ok()) return 1;
    while (true) {
    }
  };
  const Child one(busy);
  const Child other(busy);
  while (*cgroup.ReadStalls()->cpu_ns < 10'000'000) ::sched_yield();  // or the test's time limit
  EXPECT_TRUE(cgroup.ReadStalls()->memory_ns.has_value());
  EXPECT_TRUE(cgroup.ReadStalls()->io_ns.has_value());
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, ReservedCoresAreTheTasksOwn) {
  REQUIRES_CONTROLLER("cpuset");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.cpuset_cpus = "0"}));
  Child child([&cgroup](int ready) { return cgroup.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(child.pid(), sizeof(allowed), &allowed), 0);
  EXPECT_EQ(CPU_COUNT(&allowed), 1);
  EXPECT_TRUE(CPU_ISSET(0, &allowed));
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, AnIoWeightIsWrittenAndTakenBack) {
  REQUIRES_CONTROLLER("io");
  const absl::StatusOr<Cgroup> cgroup = Create({.io_weight = 300});
  if (!cgroup.ok()) GTEST_SKIP() << "needs weights for disk I/O: " << cgroup.status();
  const bool bfq = ::access((cgroup->dirs().front() + "/io.bfq.weight").c_str(), F_OK) == 0;
  const std::string file = bfq ? "io.bfq.weight" : "io.weight";
  EXPECT_EQ(ReadIn(*cgroup, file), bfq ? "default 300" : "default 2930");
  ASSERT_OK(Create());
  EXPECT_EQ(ReadIn(*cgroup, file), "default 100");
  EXPECT_OK(cgroup->Remove());
}

TEST_F(V2KernelTest, ALimitWhoseControllerIsNotEnabledFails) {
  if (hierarchy_.Has("pids")) GTEST_SKIP() << "needs a cgroup2 without the controller pids";
  EXPECT_THAT(Create({.pids = 5}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("pids.max: controller 'pids' is not enabled")));
  EXPECT_THAT(Leftovers(), IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent::cgroups
