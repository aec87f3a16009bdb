// The life of a task on a real cgroup2, also the one without controllers that hybrid hosts have
// beside v1. Limits on v2 need a v2 host: tests/vm.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "cgroups/files.h"
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
  static std::string ReadIn(const Cgroup& cgroup, const std::string& file) {
    const absl::StatusOr<std::string> text = ReadFileIn(cgroup.dirs().front(), file);
    return text.ok() ? *text : text.status().ToString();
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

TEST_F(V2KernelTest, ANamespaceIsTakenFromOutside) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  Child child([&cgroup](int) {
    if (!cgroup.UnshareNamespace().ok()) return 1;
    if (!cgroup.Members()->empty()) return 2;
    const absl::StatusOr<Cgroup::Forked> forked = cgroup.Fork();
    if (!forked.ok()) return 3;
    if (forked->pid == 0) {
      if (!forked->inside && !cgroup.Enter().ok()) ::_exit(4);
      ::_exit(OwnCgroup("0::") == "/" ? 0 : 5);
    }
    int status = 0;
    ::waitpid(forked->pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 6;
  });
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 0);
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, WhatIsFrozenStandsUntilItIsThawed) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  std::atomic<uint64_t>* counter = SharedCounter();
  Child child([&cgroup, counter](int ready) {
    if (!cgroup.Enter().ok()) return 1;
    SayReady(ready);
    while (true) ++*counter;
  });
  ASSERT_TRUE(child.WaitReady());
  ASSERT_OK(cgroup.Freeze(kLimit));
  const uint64_t frozen = *counter;
  for (int i = 0; i < 100; ++i) ::sched_yield();
  EXPECT_EQ(*counter, frozen);
  ASSERT_OK(cgroup.Thaw());
  while (*counter == frozen) ::sched_yield();  // or the test's time limit
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
  EXPECT_OK(cgroup.Thaw());
}

TEST_F(V2KernelTest, KillAllEndsStoppedAndFrozenProcesses) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  const auto idle = [&cgroup](int ready) { return cgroup.Enter().ok() ? Idle(ready) : 1; };
  Child stopped(idle);
  Child frozen(idle);
  ASSERT_TRUE(stopped.WaitReady());
  ASSERT_TRUE(frozen.WaitReady());
  ASSERT_EQ(::kill(stopped.pid(), SIGSTOP), 0);
  ASSERT_OK(cgroup.Freeze(kLimit));
  ASSERT_OK(cgroup.KillAll(kLimit));
  EXPECT_TRUE(WIFSIGNALED(stopped.Wait()));
  EXPECT_TRUE(WIFSIGNALED(frozen.Wait()));
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, KillAllSparesItsCaller) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  Child child([&cgroup](int) {
    if (!cgroup.Enter().ok()) return 1;
    return absl::IsFailedPrecondition(cgroup.KillAll(kLimit)) ? 0 : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, ARecoveredPluginRemovesEverythingWhereNoNomadIs) {
  if (::access((hierarchy_.root() + "/nomad.slice/reserve.slice").c_str(), F_OK) == 0) {
    GTEST_SKIP() << "needs a node whose cgroups no Nomad has set up";
  }
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  ASSERT_OK_AND_ASSIGN(const Cgroup recovered, Cgroup::Open(hierarchy_, cgroup.dirs()));
  ASSERT_OK(recovered.Remove());
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), parent_), IsEmpty());
}

TEST_F(V2KernelTest, ManyTasksComeAndGoAtTheSameTime) {
  constexpr int kTasks = 4;
  constexpr int kRounds = 30;
  std::vector<std::unique_ptr<Child>> tasks;
  for (int task = 0; task < kTasks; ++task) {
    tasks.push_back(std::make_unique<Child>([this, task](int) {
      const std::string name = absl::StrCat("test-", task);
      const Placement placement = {.name = name, .cpuset_cgroup = parent_ + "/" + name + ".scope"};
      for (int round = 0; round < kRounds; ++round) {
        const absl::StatusOr<Cgroup> cgroup = Cgroup::Create(hierarchy_, placement, {});
        if (!cgroup.ok() || !cgroup->Remove().ok()) {
          std::cerr << cgroup.status() << "\n";
          return 1;
        }
      }
      return 0;
    }));
  }
  for (const std::unique_ptr<Child>& task : tasks) EXPECT_EQ(task->Wait(), 0);
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), parent_), IsEmpty());
}

TEST_F(V2KernelTest, OnlyAllowedDevicesOpenAndTheNextTaskHasItsOwnRules) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.devices = StandardDevices()}));
  Child child([&cgroup](int) { return cgroup.Enter().ok() ? DevicesThatOpen() : 0; });
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 1);
  std::vector<DeviceRule> rules = StandardDevices();
  rules.push_back({'c', 1, 11, "r"});  // kmsg
  ASSERT_OK_AND_ASSIGN(const Cgroup more, Create({.devices = rules}));
  Child reader([&more](int) { return more.Enter().ok() ? DevicesThatOpen() : 0; });
  EXPECT_EQ(WEXITSTATUS(reader.Wait()), 3);
  ASSERT_OK(Create({.devices = StandardDevices()}));
  ASSERT_OK(Create());  // none again
  Child free([&cgroup](int) { return cgroup.Enter().ok() ? DevicesThatOpen() : 0; });
  EXPECT_EQ(WEXITSTATUS(free.Wait()), 3);
  EXPECT_OK(cgroup.Remove());
}

// ---- limits: a v2 host ----

#define REQUIRES_CONTROLLER(name) \
  if (!hierarchy_.Has(name)) GTEST_SKIP() << "needs the cgroup2 controller " << (name)

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

TEST_F(V2KernelTest, UsageIsRead) {
  for (const char* controller : {"memory", "cpu", "pids"}) REQUIRES_CONTROLLER(controller);
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  Child child([&cgroup](int ready) {
    return cgroup.Enter().ok() && UseMemory(8 << 20) == 0 ? Idle(ready) : 1;
  });
  ASSERT_TRUE(child.WaitReady());
  ASSERT_OK_AND_ASSIGN(const Usage usage, cgroup.ReadUsage());
  EXPECT_GE(usage.memory_usage_bytes.value_or(0), 8u << 20);
  EXPECT_GE(usage.memory_rss_bytes.value_or(0), 7u << 20);
  EXPECT_GE(usage.memory_peak_bytes.value_or(0), 8u << 20);
  EXPECT_GT(usage.memory_kernel_bytes.value_or(0), 0u);
  EXPECT_TRUE(usage.memory_cache_bytes.has_value());
  EXPECT_GT(usage.cpu_total_ns.value_or(0), 0u);
  EXPECT_TRUE(usage.cpu_user_ns.has_value());
  EXPECT_TRUE(usage.cpu_system_ns.has_value());
  EXPECT_EQ(usage.cpu_throttled_periods, 0u);
  EXPECT_EQ(usage.pids, 1u);
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
  EXPECT_THAT(cgroup.ReadUsage(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("test-")));
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

TEST_F(V2KernelTest, KillAllEndsATreeThatForksOn) {
  REQUIRES_CONTROLLER("pids");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.pids = 150}));
  Child child([&cgroup](int ready) {
    if (!cgroup.Enter().ok()) return 1;
    ::signal(SIGCHLD, SIG_IGN);
    SayReady(ready);
    while (true) {  // every descendant, too
      if (::fork() < 0) ::sched_yield();
    }
  });
  ASSERT_TRUE(child.WaitReady());
  ASSERT_OK(cgroup.KillAll(kLimit));
  EXPECT_THAT(*cgroup.Members(), IsEmpty());
  child.Wait();
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, TheMemoryLimitKillsAndTheWatchTells) {
  REQUIRES_CONTROLLER("memory");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.memory_bytes = 16 << 20}));
  ASSERT_OK_AND_ASSIGN(const OomWatch watch, cgroup.WatchOom());
  EXPECT_TRUE(watch.Acknowledge());
  pollfd event = {watch.fd(), POLLPRI, 0};
  EXPECT_EQ(::poll(&event, 1, 0), 0);
  Child child([&cgroup](int) { return cgroup.Enter().ok() ? UseMemory(64 << 20) : 1; });
  EXPECT_EQ(::poll(&event, 1, static_cast<int>(kLimit.count())), 1);
  EXPECT_TRUE(WIFSIGNALED(child.Wait()));
  EXPECT_TRUE(watch.Acknowledge());
  EXPECT_EQ(*cgroup.OomKills(), 1u);
  EXPECT_GE(cgroup.ReadUsage()->memory_peak_bytes.value_or(0), 15u << 20);
  EXPECT_OK(cgroup.Remove());
  EXPECT_FALSE(watch.Acknowledge());
}

TEST_F(V2KernelTest, ThePidsLimitStopsForks) {
  REQUIRES_CONTROLLER("pids");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.pids = 3}));
  Child child([&cgroup](int) {
    if (!cgroup.Enter().ok()) return 100;
    for (int forks = 0; forks < 50; ++forks) {
      const pid_t pid = ::fork();
      if (pid == 0) return Idle(-1);
      if (pid < 0) return errno == EAGAIN ? forks : 101;
    }
    return 102;
  });
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 2);  // itself and two more
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V2KernelTest, AHardCpuCapThrottles) {
  REQUIRES_CONTROLLER("cpu");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.cpu_quota_us = 10'000}));
  Child child([&cgroup](int) {
    if (!cgroup.Enter().ok()) return 1;
    rusage used = {};
    while (used.ru_utime.tv_sec == 0 && used.ru_utime.tv_usec < 40'000) {
      ::getrusage(RUSAGE_SELF, &used);
    }
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_GT(cgroup.ReadUsage()->cpu_throttled_periods.value_or(0), 0u);
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
