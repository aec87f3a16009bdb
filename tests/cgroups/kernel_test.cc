// The life of a task's cgroup on the real kernel: what v1 and v2 have in common. v2 with
// controllers needs a v2 host: tests/vm.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "driver/base/pidfd.h"
#include "tests/cgroups/kernel_support.h"

namespace jenkins_agent::cgroups {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class EveryVersion : public KernelTest, public testing::WithParamInterface<Version> {
 protected:
  void SetUp() override { SetUpFor(GetParam()); }
};

TEST_P(EveryVersion, ALifeLeavesNothingBehind) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  EXPECT_THAT(Leftovers(), Not(IsEmpty()));
  Child child([&cgroup](int ready) { return cgroup.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  EXPECT_THAT(*cgroup.Members(), ElementsAre(child.pid()));
  EXPECT_THAT(cgroup.Remove(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("still inside")));

  ASSERT_OK(cgroup.KillAll(kLimit));
  EXPECT_THAT(*cgroup.Members(), IsEmpty());
  const int status = child.Wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  ASSERT_OK(cgroup.Remove());
  ASSERT_OK(cgroup.Remove());
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_THAT(Leftovers(), IsEmpty());
}

TEST_P(EveryVersion, ARecoveredPluginRemovesEverythingWhereNoNomadIs) {
  const std::string of_nomad = GetParam() == Version::kV1
                                   ? hierarchy_.ControllerPath("cpuset") + "/nomad"
                                   : hierarchy_.root() + "/nomad.slice/reserve.slice";
  if (::access(of_nomad.c_str(), F_OK) == 0) {
    GTEST_SKIP() << "needs a node whose cgroups no Nomad has set up";
  }
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  ASSERT_OK_AND_ASSIGN(const Cgroup recovered, Cgroup::Open(hierarchy_, cgroup.dirs()));
  ASSERT_OK(recovered.Remove());
  EXPECT_THAT(Leftovers(), IsEmpty());
}

// As the first child of a sandbox and its pid 1 do. v2 with nsdelegate: whoever has the namespace
// may not clone into it from outside, so the child enters.
TEST_P(EveryVersion, ANamespaceIsTakenFromOneWhoIsInside) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  const char* const line = GetParam() == Version::kV1 ? ":freezer:" : "0::";
  Child inside([&cgroup](int ready) {
    return cgroup.Enter().ok() && UnshareNamespace().ok() ? Idle(ready) : 1;
  });
  ASSERT_TRUE(inside.WaitReady());
  ASSERT_OK_AND_ASSIGN(const Fd pidfd, OpenPidfd(inside.pid()));
  Child child([&](int) {
    if (!JoinNamespaceOf(pidfd.get()).ok()) return 1;
    if (OwnCgroup(line) == "/") return 2;
    const absl::StatusOr<Cgroup::Forked> forked = cgroup.Fork();
    if (!forked.ok()) return 3;
    if (forked->pid == 0) {
      if (!forked->inside && !cgroup.Enter().ok()) ::_exit(4);
      ::_exit(OwnCgroup(line) == "/" ? 0 : 5);
    }
    int status = 0;
    ::waitpid(forked->pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 6;
  });
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 0);
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
}

TEST_P(EveryVersion, LeftoversAreEndedBeforeANewStart) {
  ASSERT_OK_AND_ASSIGN(const Cgroup first, Create());
  Child child([&first](int ready) { return first.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  ASSERT_OK_AND_ASSIGN(const Cgroup second, Create());
  EXPECT_TRUE(WIFSIGNALED(child.Wait()));
  EXPECT_THAT(second.dirs_made(), IsEmpty());
  EXPECT_OK(second.Remove());
  EXPECT_OK(first.Remove());
}

TEST_P(EveryVersion, KillAllEndsStoppedAndFrozenProcesses) {
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

TEST_P(EveryVersion, KillAllEndsATreeThatForksOn) {
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

TEST_P(EveryVersion, KillAllSparesItsCaller) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  Child child([&cgroup](int) {
    if (!cgroup.Enter().ok()) return 1;
    return absl::IsFailedPrecondition(cgroup.KillAll(kLimit)) ? 0 : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_OK(cgroup.Remove());
}

TEST_P(EveryVersion, WhatIsFrozenStandsUntilItIsThawed) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  std::atomic<uint64_t>* counter = SharedCounter();
  Child child([&cgroup, counter](int ready) {
    if (!cgroup.Enter().ok()) return 1;
    SayReady(ready);
    while (true) ++*counter;
  });
  ASSERT_TRUE(child.WaitReady());
  ASSERT_OK_AND_ASSIGN(const Gauges gauges, cgroup.OpenGauges());
  EXPECT_FALSE(gauges.Read().frozen);
  ASSERT_OK(cgroup.Freeze(kLimit));
  EXPECT_TRUE(gauges.Read().frozen);
  const uint64_t frozen = *counter;
  ASSERT_EQ(::kill(child.pid(), SIGCONT), 0);
  for (int i = 0; i < 100; ++i) ::sched_yield();
  EXPECT_EQ(*counter, frozen);
  ASSERT_OK(cgroup.Thaw());
  while (*counter == frozen) ::sched_yield();  // or the test's time limit
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
  EXPECT_OK(cgroup.Thaw());
}

TEST_P(EveryVersion, OnlyAllowedDevicesOpenAndTheNextTaskHasItsOwnRules) {
  if (GetParam() == Version::kV1) REQUIRES_CONTROLLER("devices");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.devices = StandardDevices()}));
  Child child([&cgroup](int) { return cgroup.Enter().ok() ? DevicesThatOpen() : 0; });
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 1);
  std::vector<DeviceRule> rules = StandardDevices();
  rules.push_back({'c', 1, 11, "r"});  // kmsg
  ASSERT_OK_AND_ASSIGN(const Cgroup more, Create({.devices = rules}));
  Child reader([&more](int) { return more.Enter().ok() ? DevicesThatOpen() : 0; });
  EXPECT_EQ(WEXITSTATUS(reader.Wait()), 3);
  ASSERT_OK_AND_ASSIGN(const Cgroup without, Create());
  Child free([&without](int) { return without.Enter().ok() ? DevicesThatOpen() : 0; });
  EXPECT_EQ(WEXITSTATUS(free.Wait()), 3);
  EXPECT_OK(cgroup.Remove());  // the one that made the directories
  EXPECT_THAT(Leftovers(), IsEmpty());
}

TEST_P(EveryVersion, UsageIsRead) {
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
  ASSERT_OK_AND_ASSIGN(const Gauges gauges, cgroup.OpenGauges());
  EXPECT_GE(gauges.Read().memory_bytes.value_or(0), 8u << 20);
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
  EXPECT_EQ(gauges.Read().pids, std::nullopt);  // its open files keep no directory
  EXPECT_THAT(cgroup.ReadUsage(), StatusIs(absl::StatusCode::kNotFound, HasSubstr(name_)));
}

TEST_P(EveryVersion, AHardCpuCapThrottles) {
  REQUIRES_CONTROLLER("cpu");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.cpu_quota_us = 10'000}));
  Child child([&cgroup](int) {
    if (!cgroup.Enter().ok()) return 1;
    rusage used = {};  // four periods' worth at this cap
    while (used.ru_utime.tv_sec == 0 && used.ru_utime.tv_usec < 40'000) {
      ::getrusage(RUSAGE_SELF, &used);
    }
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  ASSERT_OK_AND_ASSIGN(const Usage usage, cgroup.ReadUsage());
  EXPECT_GT(usage.cpu_throttled_periods.value_or(0), 0u);
  EXPECT_GT(usage.cpu_throttled_ns.value_or(0), 0u);
  EXPECT_OK(cgroup.Remove());
}

TEST_P(EveryVersion, ThePidsLimitStopsForks) {
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
  const int status = child.Wait();
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 2);  // itself and two more
  ASSERT_OK_AND_ASSIGN(const Gauges gauges, cgroup.OpenGauges());
  EXPECT_EQ(gauges.Read().pids, 2u);
  EXPECT_EQ(gauges.ceiling().pids, 3u);
  ASSERT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
}

TEST_P(EveryVersion, TheMemoryLimitKillsAndTheWatchTells) {
  REQUIRES_CONTROLLER("memory");
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.memory_bytes = 16 << 20}));
  EXPECT_EQ(cgroup.ReadCeiling()->memory_bytes, 16u << 20);
  EXPECT_EQ(*cgroup.OomKills(), 0u);
  ASSERT_OK_AND_ASSIGN(const OomWatch watch, cgroup.WatchOom());
  EXPECT_TRUE(watch.Acknowledge());
  const short rings = GetParam() == Version::kV1 ? POLLIN : POLLPRI;
  pollfd event = {watch.fd(), rings, 0};
  EXPECT_EQ(::poll(&event, 1, 0), 0);
  Child child([&cgroup](int) { return cgroup.Enter().ok() ? UseMemory(64 << 20) : 1; });
  EXPECT_EQ(::poll(&event, 1, static_cast<int>(kLimit.count())), 1);
  const int status = child.Wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  EXPECT_TRUE(watch.Acknowledge());
  EXPECT_EQ(::poll(&event, 1, 0), 0);
  EXPECT_GE(*cgroup.OomKills(), 1u);
  EXPECT_GE(cgroup.ReadUsage()->memory_peak_bytes.value_or(0), 15u << 20);
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
}

TEST_P(EveryVersion, ManyTasksComeAndGoAtTheSameTime) {
  // Parents are made and removed by all of them: mkdir and rmdir race.
  constexpr int kTasks = 4;
  constexpr int kRounds = 30;
  Limits limits;
  if (hierarchy_.Has("pids")) limits.pids = 5;
  std::vector<std::unique_ptr<Child>> tasks;
  for (int task = 0; task < kTasks; ++task) {
    tasks.push_back(std::make_unique<Child>([&, task](int) {
      const Placement placement = PlacementOf(absl::StrCat(name_, "-", task));
      for (int round = 0; round < kRounds; ++round) {
        const absl::StatusOr<Cgroup> cgroup = Cgroup::Create(hierarchy_, placement, limits);
        if (!cgroup.ok() || !cgroup->Remove().ok()) {
          std::cerr << cgroup.status() << "\n";
          return 1;
        }
      }
      return 0;
    }));
  }
  for (const std::unique_ptr<Child>& task : tasks) EXPECT_EQ(task->Wait(), 0);
  EXPECT_THAT(Leftovers(), IsEmpty());
}

// Those that this host has: beside v1 a cgroup2 whose controllers are elsewhere, or v2 alone.
std::vector<Version> VersionsHere() {
  const absl::StatusOr<Hierarchy> here = Hierarchy::Detect();
  if (here.ok() && here->version() == Version::kV2) return {Version::kV2};
  return {Version::kV1, Version::kV2};
}

INSTANTIATE_TEST_SUITE_P(Cgroup, EveryVersion, testing::ValuesIn(VersionsHere()),
                         [](const testing::TestParamInfo<Version>& version) {
                           return version.param == Version::kV1 ? "v1" : "v2";
                         });

}  // namespace
}  // namespace jenkins_agent::cgroups
