// The life of a task on the real v1 controllers of this host.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <fstream>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "cgroups/files.h"
#include "tests/cgroups/kernel_support.h"
#include "tests/support/requires.h"

namespace jenkins_agent::cgroups {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr milliseconds kLimit(20000);

class V1KernelTest : public testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_OK_AND_ASSIGN(hierarchy_, Hierarchy::Detect());
    if (hierarchy_.version() != Version::kV1) GTEST_SKIP() << "needs cgroup v1 controllers";
    for (const char* controller : {"freezer", "memory", "cpu", "cpuacct", "pids", "cpuset"}) {
      if (!hierarchy_.Has(controller)) GTEST_SKIP() << "needs the v1 controller " << controller;
    }
  }
  absl::StatusOr<Cgroup> Create(const Limits& limits = {}, const std::string& cpuset = "") const {
    return Cgroup::Create(
        hierarchy_,
        {.name = name_, .cpuset_cgroup = cpuset, .extra_controllers = ExtraControllers(limits)},
        limits);
  }
  std::string Dir(const std::string& controller) const {
    return hierarchy_.ControllerPath(controller) + "/nomad/" + name_;
  }
  std::string ReadIn(const std::string& controller, const std::string& file) const {
    const absl::StatusOr<std::string> text = ReadFileIn(Dir(controller), file);
    return text.ok() ? *text : text.status().ToString();
  }

  Hierarchy hierarchy_;
  const std::string name_ = absl::StrCat("test-", ::getpid(), ".task");
};

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

TEST_F(V1KernelTest, AHardCpuCapThrottles) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.cpu_quota_us = 10'000}));
  EXPECT_EQ(ReadIn("cpu", "cpu.cfs_quota_us"), "10000");
  EXPECT_EQ(ReadIn("cpu", "cpu.cfs_period_us"), "100000");
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
  ASSERT_OK(Create());
  EXPECT_EQ(ReadIn("cpu", "cpu.cfs_quota_us"), "-1");
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
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), name_), IsEmpty());
}

TEST_F(V1KernelTest, ALifeLeavesNothingBehind) {
  const std::set<std::string> before = DirectoriesNamed(hierarchy_.root(), name_);
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  EXPECT_THAT(cgroup.dirs(),
              ElementsAre(Dir("freezer"), Dir("memory"), Dir("cpu"), Dir("cpuacct"), Dir("pids")));
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), name_), SizeIs(before.size() + 5));
  Child child([&cgroup](int ready) { return cgroup.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(child.WaitReady());
  EXPECT_THAT(*cgroup.Members(), ElementsAre(child.pid()));
  EXPECT_THAT(cgroup.Remove(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("still inside")));

  ASSERT_OK(cgroup.KillAll(kLimit));
  const int status = child.Wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  ASSERT_OK(cgroup.Remove());
  ASSERT_OK(cgroup.Remove());
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_THAT(cgroup.ReadUsage(), StatusIs(absl::StatusCode::kNotFound, HasSubstr(name_)));
  EXPECT_EQ(DirectoriesNamed(hierarchy_.root(), name_), before);
}

TEST_F(V1KernelTest, ARecoveredPluginRemovesEverythingWhereNoNomadIs) {
  if (::access((hierarchy_.ControllerPath("cpuset") + "/nomad").c_str(), F_OK) == 0) {
    GTEST_SKIP() << "needs a node whose cgroups no Nomad has set up";
  }
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  ASSERT_OK_AND_ASSIGN(const Cgroup recovered, Cgroup::Open(hierarchy_, cgroup.dirs()));
  ASSERT_OK(recovered.Remove());
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), name_), IsEmpty());
}

TEST_F(V1KernelTest, AChildUsesAndLeaves) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  Child child([&cgroup](int ready) {
    if (!cgroup.Enter().ok()) return 1;
    constexpr size_t kBytes = 8 << 20;
    void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) return 2;
    return Idle(ready);
  });
  ASSERT_TRUE(child.WaitReady());
  ASSERT_OK_AND_ASSIGN(const Usage usage, cgroup.ReadUsage());
  EXPECT_GE(usage.memory_usage_bytes.value_or(0), 8u << 20);
  EXPECT_GE(usage.memory_rss_bytes.value_or(0), 7u << 20);
  EXPECT_GE(usage.memory_peak_bytes.value_or(0), 8u << 20);
  EXPECT_GT(usage.cpu_total_ns.value_or(0), 0u);
  EXPECT_EQ(usage.pids, 1u);
  EXPECT_TRUE(usage.cpu_user_ns.has_value());
  EXPECT_TRUE(usage.cpu_throttled_periods.has_value());
  ASSERT_OK(cgroup.KillAll(kLimit));

  Child passer([&cgroup](int ready) {
    return cgroup.Enter().ok() && cgroup.Leave().ok() ? Idle(ready) : 1;
  });
  ASSERT_TRUE(passer.WaitReady());
  EXPECT_THAT(*cgroup.Members(), IsEmpty());
  std::ifstream own("/proc/self/cgroup");
  std::ifstream other(absl::StrCat("/proc/", passer.pid(), "/cgroup"));
  const std::string mine{std::istreambuf_iterator<char>(own), {}};
  const std::string its{std::istreambuf_iterator<char>(other), {}};
  EXPECT_EQ(its, mine);
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, ThePidsLimitStopsForks) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.pids = 3}));
  Child child([&cgroup](int) {
    if (!cgroup.Enter().ok()) return 100;
    int forks = 0;
    while (forks < 50) {
      const pid_t pid = ::fork();
      if (pid == 0) return Idle(-1);
      if (pid < 0) return errno == EAGAIN ? forks : 101;
      ++forks;
    }
    return 102;
  });
  const int status = child.Wait();
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 2);  // itself and two more
  ASSERT_OK_AND_ASSIGN(const Cgroup::Pids pids, cgroup.ReadPids());
  EXPECT_EQ(pids.current, 2u);
  EXPECT_EQ(pids.limit, 3u);
  ASSERT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, TheMemoryLimitKillsAndIsCounted) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.memory_bytes = 16 << 20}));
  EXPECT_EQ(cgroup.ReadCeiling()->memory_bytes, 16u << 20);
  EXPECT_EQ(cgroup.ReadCeiling()->pids, std::nullopt);
  EXPECT_EQ(*cgroup.OomKills(), 0u);
  Child child([&cgroup](int) {
    if (!cgroup.Enter().ok()) return 1;
    return UseMemory(64 << 20);
  });
  const int status = child.Wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  EXPECT_GE(*cgroup.OomKills(), 1u);
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, KillAllEndsATreeThatForksOn) {
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
  EXPECT_EQ(ReadIn("freezer", "freezer.state"), "THAWED");
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, KillAllEndsStoppedAndFrozenProcesses) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  const auto idle = [&cgroup](int ready) { return cgroup.Enter().ok() ? Idle(ready) : 1; };
  Child stopped(idle);
  Child frozen(idle);
  ASSERT_TRUE(stopped.WaitReady());
  ASSERT_TRUE(frozen.WaitReady());
  ASSERT_EQ(::kill(stopped.pid(), SIGSTOP), 0);
  ASSERT_OK(WriteFileIn(Dir("freezer"), "freezer.state", "FROZEN"));
  ASSERT_OK(cgroup.KillAll(kLimit));
  EXPECT_TRUE(WIFSIGNALED(stopped.Wait()));
  EXPECT_TRUE(WIFSIGNALED(frozen.Wait()));
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, KillAllSparesItsCaller) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  Child child([&cgroup](int) {
    if (!cgroup.Enter().ok()) return 1;
    return absl::IsFailedPrecondition(cgroup.KillAll(kLimit)) ? 0 : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_OK(cgroup.Remove());
}

TEST_F(V1KernelTest, LeftoversAreEndedAndAFrozenDirectoryIsThawedBeforeANewStart) {
  ASSERT_OK_AND_ASSIGN(const Cgroup first, Create());
  Child leftover([&first](int ready) { return first.Enter().ok() ? Idle(ready) : 1; });
  ASSERT_TRUE(leftover.WaitReady());
  ASSERT_OK(WriteFileIn(Dir("freezer"), "freezer.state", "FROZEN"));

  ASSERT_OK_AND_ASSIGN(const Cgroup second, Create({.memory_bytes = 32 << 20}));
  EXPECT_TRUE(WIFSIGNALED(leftover.Wait()));
  Child child([&second](int ready) { return second.Enter().ok() ? Idle(ready) : 1; });
  EXPECT_TRUE(child.WaitReady());
  ASSERT_OK(second.KillAll(kLimit));
  EXPECT_OK(first.Remove());
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

TEST_F(V1KernelTest, OnlyAllowedDevicesOpen) {
  if (!hierarchy_.Has("devices")) GTEST_SKIP() << "needs the v1 controller devices";
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.devices = StandardDevices()}));
  Child child([&cgroup](int) { return cgroup.Enter().ok() ? DevicesThatOpen() : 0; });
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 1);
  ASSERT_OK(cgroup.Remove());
  std::vector<DeviceRule> rules = StandardDevices();
  rules.push_back({'c', 1, 11, "r"});  // kmsg
  ASSERT_OK_AND_ASSIGN(const Cgroup more, Create({.devices = rules}));
  Child reader([&more](int) { return more.Enter().ok() ? DevicesThatOpen() : 0; });
  EXPECT_EQ(WEXITSTATUS(reader.Wait()), 3);
  ASSERT_OK(more.Remove());
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), name_), IsEmpty());
}

TEST_F(V1KernelTest, WhatIsFrozenStandsUntilItIsThawed) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  std::atomic<uint64_t>* counter = SharedCounter();
  Child child([&cgroup, counter](int ready) {
    if (!cgroup.Enter().ok()) return 1;
    SayReady(ready);
    while (true) ++*counter;
  });
  ASSERT_TRUE(child.WaitReady());
  EXPECT_FALSE(*cgroup.Frozen());
  ASSERT_OK(cgroup.Freeze(kLimit));
  EXPECT_TRUE(*cgroup.Frozen());
  EXPECT_EQ(ReadIn("freezer", "freezer.state"), "FROZEN");
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

TEST_F(V1KernelTest, ANamespaceIsTakenWithoutStayingInside) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create());
  Child child([&cgroup](int) {
    if (!cgroup.UnshareNamespace().ok()) return 1;
    if (!cgroup.Members()->empty()) return 2;
    if (!cgroup.Enter().ok()) return 3;
    return OwnCgroup(":memory:") == "/" ? 0 : 4;
  });
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 0);
  EXPECT_OK(cgroup.KillAll(kLimit));
  EXPECT_OK(cgroup.Remove());
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
  Child child([&](int) {
    if (!cgroup.UnshareNamespace().ok()) return 1;
    if (!made.Members()->empty()) return 2;
    if (!cgroup.Enter().ok() || OwnCgroup(":memory:") != "/") return 3;
    return cgroup.Leave().ok() && made.Members()->empty() ? 0 : 4;
  });
  EXPECT_EQ(WEXITSTATUS(child.Wait()), 0);
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

TEST_F(V1KernelTest, TheWatchRingsWhenTheMemoryLimitKills) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.memory_bytes = 16 << 20}));
  ASSERT_OK_AND_ASSIGN(const OomWatch watch, cgroup.WatchOom());
  EXPECT_TRUE(watch.Acknowledge());
  pollfd event = {watch.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&event, 1, 0), 0);
  Child child([&cgroup](int) { return cgroup.Enter().ok() ? UseMemory(64 << 20) : 1; });
  EXPECT_TRUE(WIFSIGNALED(child.Wait()));
  EXPECT_EQ(::poll(&event, 1, 0), 1);
  EXPECT_TRUE(watch.Acknowledge());
  EXPECT_EQ(::poll(&event, 1, 0), 0);
  EXPECT_GE(*cgroup.OomKills(), 1u);
  EXPECT_OK(cgroup.KillAll(kLimit));
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
  EXPECT_THAT(Create({}, parent),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has no cores yet")));
  EXPECT_NE(::access(Dir("memory").c_str(), F_OK), 0) << "a failed Create undoes its directories";

  ASSERT_OK(WriteFileIn(parent, "cpuset.cpus", cores));
  ASSERT_OK(WriteFileIn(parent, "cpuset.mems", mems));
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, Create({.cpuset_cpus = "0"}, parent + "/" + name_));
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

TEST_F(V1KernelTest, ManyTasksComeAndGoAtTheSameTime) {
  // Parents are made and removed by all of them: mkdir and rmdir race.
  constexpr int kTasks = 4;
  constexpr int kRounds = 30;
  std::vector<std::unique_ptr<Child>> tasks;
  for (int task = 0; task < kTasks; ++task) {
    tasks.push_back(std::make_unique<Child>([this, task](int) {
      const Placement placement = {.name = absl::StrCat(name_, "-", task)};
      for (int round = 0; round < kRounds; ++round) {
        const absl::StatusOr<Cgroup> cgroup = Cgroup::Create(hierarchy_, placement, {.pids = 5});
        if (!cgroup.ok() || !cgroup->Remove().ok()) {
          std::cerr << cgroup.status() << "\n";
          return 1;
        }
      }
      return 0;
    }));
  }
  for (const std::unique_ptr<Child>& task : tasks) EXPECT_EQ(task->Wait(), 0);
  EXPECT_THAT(DirectoriesNamed(hierarchy_.root(), name_), IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent::cgroups
