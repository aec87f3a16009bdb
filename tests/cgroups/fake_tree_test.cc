// Create, Enter and the readers on trees of plain files: which values go to which files.
#include "tests/cgroups/fake_tree.h"

#include <filesystem>

#include "cgroups/cgroup.h"
#include "driver/base/status.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent::cgroups {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Optional;

const Limits kSome = {.memory_bytes = 64 << 20, .cpu_shares = 1000, .pids = 9};

absl::StatusOr<Cgroup> CreateOn(const FakeHost& host, const std::string& cpuset,
                                const Limits& limits = kSome, const std::string& name = "a1.web") {
  ASSIGN_OR_RETURN(const Hierarchy hierarchy,
                   Hierarchy::Detect(host.proc_root(), host.cgroup_root()));
  return Cgroup::Create(hierarchy,
                        {.name = name,
                         .cpuset_cgroup = cpuset.empty() ? "" : host.cgroup_root() + "/" + cpuset,
                         .extra_controllers = ExtraControllers(limits)},
                        limits);
}

std::vector<std::string> Names(const Cgroup& cgroup) {
  std::vector<std::string> names;
  for (const Cgroup::View& view : cgroup.views()) names.push_back(view.name);
  return names;
}

class V1TreeTest : public testing::Test {
 protected:
  FakeHost host_{NomadTreeV1(), {std::string(kMountinfoV1) + kMountinfoUnified, kProcCgroupV1}};
};

TEST_F(V1TreeTest, WritesLimitsIntoTheDirectoriesOfTheTask) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, "cpuset/nomad/share"));
  EXPECT_EQ(host_.Read("memory/nomad/a1.web/memory.limit_in_bytes"), "67108864");
  EXPECT_EQ(host_.Read("memory/nomad/a1.web/memory.soft_limit_in_bytes"), "-1");
  EXPECT_EQ(host_.Read("memory/nomad/a1.web/memory.swappiness"), "0");
  EXPECT_EQ(host_.Read("cpu/nomad/a1.web/cpu.shares"), "1000");
  EXPECT_EQ(host_.Read("pids/nomad/a1.web/pids.max"), "9");
  EXPECT_EQ(host_.Read("freezer/nomad/a1.web/freezer.state"), "THAWED");
  EXPECT_EQ(host_.Read("cpuset/nomad/share/cpuset.cpus"), "0-1\n");
  EXPECT_THAT(cgroup.dirs_made(), IsEmpty());
}

TEST_F(V1TreeTest, MemoryAndSwapTogetherAreNoMoreThanMemory) {
  ASSERT_OK(CreateOn(host_, ""));
  EXPECT_EQ(host_.Read("memory/nomad/a1.web/memory.memsw.limit_in_bytes"), "67108864");
}

TEST_F(V1TreeTest, AHardCpuCapIsTakenBackByTheNextTask) {
  Limits limits = kSome;
  limits.cpu_quota_us = 25'000;
  ASSERT_OK(CreateOn(host_, "", limits));
  EXPECT_EQ(host_.Read("cpu/nomad/a1.web/cpu.cfs_period_us"), "100000");
  EXPECT_EQ(host_.Read("cpu/nomad/a1.web/cpu.cfs_quota_us"), "25000");
  ASSERT_OK(CreateOn(host_, ""));
  EXPECT_EQ(host_.Read("cpu/nomad/a1.web/cpu.cfs_quota_us").substr(0, 2), "-1");
}

TEST_F(V1TreeTest, OnlyATaskWithAnIoWeightHasADirectoryForIt) {
  ASSERT_OK_AND_ASSIGN(const Cgroup without, CreateOn(host_, ""));
  EXPECT_THAT(without.dirs(), Not(Contains(HasSubstr("blkio"))));
  Limits limits = kSome;
  limits.io_weight = 300;
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, "", limits));
  EXPECT_THAT(cgroup.dirs(), Contains(host_.cgroup_root() + "/blkio/nomad/a1.web"));
  EXPECT_EQ(host_.Read("blkio/nomad/a1.web/blkio.bfq.weight"), "300");
  ASSERT_OK(cgroup.Enter());
  EXPECT_EQ(host_.Read("blkio/nomad/a1.web/tasks"), "0");
}

TEST_F(V1TreeTest, TheSharedCpusetIsJoinedButNotTheTasks) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, "cpuset/nomad/share"));
  const std::string root = host_.cgroup_root();
  EXPECT_THAT(cgroup.dirs(),
              ElementsAre(root + "/freezer/nomad/a1.web", root + "/memory/nomad/a1.web",
                          root + "/cpu/nomad/a1.web", root + "/cpuacct/nomad/a1.web",
                          root + "/pids/nomad/a1.web"));
  EXPECT_THAT(Names(cgroup), ElementsAre("memory", "cpu", "cpuacct", "cpuset"));
  ASSERT_OK(cgroup.Enter());
  for (const char* dir : {"freezer/nomad/a1.web", "memory/nomad/a1.web", "cpu/nomad/a1.web",
                          "cpuacct/nomad/a1.web", "pids/nomad/a1.web", "cpuset/nomad/share"}) {
    EXPECT_EQ(host_.Read(std::string(dir) + "/tasks"), "0") << dir;
  }
  EXPECT_EQ(host_.Read("memory/agent/1/tasks"), "");
}

// KillAll looks there: who was killed half-way in must be found.
TEST_F(V1TreeTest, TheFreezerIsJoinedFirst) {
  const std::string file = host_.cgroup_root() + "/freezer/nomad/a1.web/tasks";
  std::filesystem::remove(file);
  std::filesystem::create_symlink("/dev/full", file);
  ASSERT_OK_AND_ASSIGN(const Cgroup joiner, CreateOn(host_, "cpuset/nomad/share"));
  EXPECT_THAT(joiner.Enter(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("freezer")));
  EXPECT_EQ(host_.Read("memory/nomad/a1.web/tasks"), "");
  EXPECT_EQ(host_.Read("cpuset/nomad/share/tasks"), "");
}

TEST_F(V1TreeTest, ReservedCoresAreWrittenToTheTasksOwnCpuset) {
  Limits limits = kSome;
  limits.cpuset_cpus = "1";
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, "cpuset/nomad/reserve/a1.web", limits));
  EXPECT_EQ(host_.Read("cpuset/nomad/reserve/a1.web/cpuset.cpus"), "1");
  EXPECT_EQ(host_.Read("cpuset/nomad/reserve/a1.web/cpuset.mems"), "0");
  EXPECT_EQ(cgroup.dirs().back(), host_.cgroup_root() + "/cpuset/nomad/reserve/a1.web");
}

TEST_F(V1TreeTest, WithoutNomadsCpusetTheTaskStaysInTheSupervisors) {
  for (const char* cpuset : {"", "nomad.slice/a1.web.scope", "cpuset/nomad/absent"}) {
    ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, cpuset));
    EXPECT_THAT(Names(cgroup), ElementsAre("memory", "cpu", "cpuacct", "cpuset")) << cpuset;
    ASSERT_OK(cgroup.Enter());
    EXPECT_EQ(host_.Read("cpuset/nomad/share/tasks"), "");
    EXPECT_EQ(host_.Read("cpuset/tasks"), "");
  }
}

TEST_F(V1TreeTest, ReadsUsageAndOomKills) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, ""));
  ASSERT_OK_AND_ASSIGN(const Usage usage, cgroup.ReadUsage());
  EXPECT_THAT(usage.cpu_total_ns, Optional(77u));
  EXPECT_THAT(usage.pids, Optional(4u));
  EXPECT_EQ(usage.memory_rss_bytes, std::nullopt);
  EXPECT_THAT(cgroup.OomKills(), IsOk());
  EXPECT_EQ(*cgroup.OomKills(), 3u);
  EXPECT_EQ(*cgroup.clone_into_fd(), -1);
}

TEST_F(V1TreeTest, OpenFindsTheSameDirectoriesAgain) {
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy,
                       Hierarchy::Detect(host_.proc_root(), host_.cgroup_root()));
  ASSERT_OK_AND_ASSIGN(const Cgroup made, CreateOn(host_, "cpuset/nomad/share"));
  ASSERT_OK_AND_ASSIGN(const Cgroup opened, Cgroup::Open(hierarchy, made.dirs()));
  EXPECT_EQ(opened.dirs(), made.dirs());
  EXPECT_EQ(*opened.OomKills(), 3u);
  EXPECT_THAT(opened.Enter(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("read")));
  EXPECT_THAT(opened.views(), IsEmpty());
}

TEST_F(V1TreeTest, OpenRefusesDirectoriesThatAreNoTasks) {
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy,
                       Hierarchy::Detect(host_.proc_root(), host_.cgroup_root()));
  for (const std::string& dir :
       {std::string("/etc"), host_.cgroup_root() + "/memory",
        host_.cgroup_root() + "/memory/nomad/../../../x", host_.cgroup_root() + "/memory/"}) {
    EXPECT_THAT(Cgroup::Open(hierarchy, {dir}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(dir)));
  }
}

TEST_F(V1TreeTest, NamesAreOneComponent) {
  for (const std::string& name :
       {std::string(""), std::string(".."), std::string("."), std::string("a/b"),
        std::string("../memory"), std::string(256, 'x'), std::string("a\0b", 3)}) {
    EXPECT_THAT(CreateOn(host_, "", {}, name),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("one path component")));
  }
}

TEST_F(V1TreeTest, AFailedCreateLeavesNothing) {
  // Plain files do not appear in a new directory: the first limit cannot be written.
  EXPECT_THAT(CreateOn(host_, "", kSome, "b2.web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("cgroup freezer/nomad/b2.web: freezer.state")));
  EXPECT_FALSE(host_.Exists("memory/nomad/b2.web"));
  EXPECT_FALSE(host_.Exists("pids/nomad/b2.web"));
  EXPECT_TRUE(host_.Exists("memory/nomad/a1.web"));
}

TEST_F(V1TreeTest, OnlyWhatNomadNeverMakesIsRemoved) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, "cpuset/nomad/share"));
  for (const std::string& dir : cgroup.dirs()) host_.Empty(dir);  // as rmdir wants it here
  ASSERT_OK(cgroup.Remove());
  EXPECT_FALSE(host_.Exists("pids/nomad"));
  EXPECT_FALSE(host_.Exists("cpuacct/nomad"));
  EXPECT_TRUE(host_.Exists("freezer/nomad/a1.web"));
  EXPECT_TRUE(host_.Exists("memory/nomad/a1.web"));
  EXPECT_TRUE(host_.Exists("cpu/nomad/a1.web"));
  EXPECT_TRUE(host_.Exists("cpuset/nomad/share"));
}

TEST(V1HostTest, ACpusetWithoutCoresIsSaidInWords) {
  const FakeHost host(NomadTreeV1("\n"), {kMountinfoV1, kProcCgroupV1});
  EXPECT_THAT(CreateOn(host, "cpuset/nomad/share"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("cgroup cpuset/nomad/share: cpuset has no cores yet")));
}

TEST(V1HostTest, ALimitWhoseControllerIsMissingFails) {
  const FakeHost host({Dir("memory", {File("tasks")})},
                      {"31 23 0:28 / @ rw - tmpfs tmpfs rw\n"
                       "35 31 0:32 / @/cpuset rw - cgroup cgroup rw,cpuset\n",
                       "1:cpuset:/\n"});
  EXPECT_THAT(CreateOn(host, "", {.pids = 3}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("controller 'pids' is not mounted")));
}

TEST(V1HostTest, AnIoWeightThatTheHostCannotGiveIsSaidInWords) {
  const std::string mountinfo =
      "31 23 0:28 / @ rw - tmpfs tmpfs rw\n"
      "35 31 0:32 / @/cpuset rw - cgroup cgroup rw,cpuset\n";
  const FakeHost unmounted({Dir("cpuset")}, {mountinfo, "1:cpuset:/\n"});
  EXPECT_THAT(CreateOn(unmounted, "", {.io_weight = 200}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "io_weight: cgroup controller 'blkio' is not mounted on this node"));
  const FakeHost no_file(
      {Dir("blkio", {File("tasks")})},
      {mountinfo + "36 31 0:33 / @/blkio rw - cgroup cgroup rw,blkio\n", "2:blkio:/\n"});
  EXPECT_THAT(CreateOn(no_file, "", {.io_weight = 200}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("this kernel has no weights for disk I/O (no blkio.bfq.weight")));
}

TEST(V1HostTest, ControllersMountedTogetherAreJoinedOnce) {
  const FakeHost host(
      {Dir("cpu,cpuacct",
           {File("tasks"), Dir("nomad", {Dir("a1.web", {File("tasks"), File("cpu.shares")})})}),
       Dir("cpuset", {Dir("nomad")})},
      {"31 23 0:28 / @ rw - tmpfs tmpfs rw\n"
       "34 31 0:31 / @/cpuset rw - cgroup cgroup rw,cpuset\n"
       "32 31 0:29 / @/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
       "1:cpu,cpuacct:/\n"});
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host, "", {.cpu_shares = 5}));
  EXPECT_THAT(cgroup.dirs(), ElementsAre(host.cgroup_root() + "/cpu,cpuacct/nomad/a1.web"));
  EXPECT_THAT(Names(cgroup), ElementsAre("cpu", "cpuacct", "cpuset"));
  ASSERT_OK(cgroup.Enter());
  EXPECT_EQ(host.Read("cpu,cpuacct/nomad/a1.web/tasks"), "0");
  // Nomad's directory, although cpuacct alone would be ours.
  ASSERT_OK(cgroup.Remove());
  EXPECT_TRUE(host.Exists("cpu,cpuacct/nomad/a1.web"));
}

TEST(V1HostTest, WithoutCgroupsCreateSaysWhatToDo) {
  const FakeHost host({}, {"23 1 8:1 / / rw - ext4 /dev/vda rw\n", "0::/\n"});
  EXPECT_THAT(CreateOn(host, ""),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no cgroups at")));
}

class V2TreeTest : public testing::Test {
 protected:
  static constexpr char kScope[] = "nomad.slice/reserve.slice/a1.web.scope";
  std::string ReadScope(const std::string& file) const {
    return host_.Read(std::string(kScope) + "/" + file);
  }
  FakeHost host_{NomadTreeV2(), {kMountinfoV2, "0::/agent\n"}};
};

TEST_F(V2TreeTest, WritesLimitsIntoNomadsScope) {
  Limits limits = kSome;
  limits.memory_soft_bytes = 4096;
  limits.cpuset_cpus = "0,2";
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, kScope, limits));
  EXPECT_EQ(ReadScope("memory.max"), "67108864");
  EXPECT_EQ(ReadScope("memory.low"), "4096");
  EXPECT_EQ(ReadScope("memory.swap.max"), "0");
  EXPECT_EQ(ReadScope("cpu.weight"), "99");
  EXPECT_EQ(ReadScope("pids.max"), "9");
  EXPECT_EQ(ReadScope("cpuset.cpus"), "0,2");
  EXPECT_EQ(ReadScope("cgroup.freeze"), "0");
  EXPECT_EQ(ReadScope("cpu.max"), "max 100000");
  EXPECT_EQ(ReadScope("io.weight"), "100");
  EXPECT_THAT(cgroup.dirs(), ElementsAre(host_.cgroup_root() + "/" + kScope));
  // Nomad's controllers were enabled already.
  EXPECT_EQ(host_.Read("nomad.slice/cgroup.subtree_control"), "cpuset cpu io memory pids\n");
}

TEST_F(V2TreeTest, CpuCapAndIoWeight) {
  Limits limits = kSome;
  limits.cpu_quota_us = 150'000;
  limits.io_weight = 1000;
  ASSERT_OK(CreateOn(host_, kScope, limits));
  EXPECT_EQ(ReadScope("cpu.max"), "150000 100000");
  EXPECT_EQ(ReadScope("io.weight"), "10000");
}

TEST_F(V2TreeTest, WhoIsHandedTheDoorsNeedsNothingElse) {
  ASSERT_OK_AND_ASSIGN(const Cgroup made, CreateOn(host_, kScope));
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy,
                       Hierarchy::Detect(host_.proc_root(), host_.cgroup_root()));
  EXPECT_THAT(Cgroup(hierarchy).Enter(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cgroup: ")));
  const Cgroup::Doors doors = made.doors();
  EXPECT_THAT(Cgroup::FromDoors(hierarchy, doors.names, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0 descriptors for 1")));
  std::vector<Fd> fds;
  for (const int fd : doors.fds) {
    ASSERT_OK_AND_ASSIGN(Fd copy, Duplicate(fd));
    fds.push_back(std::move(copy));
  }
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup,
                       Cgroup::FromDoors(hierarchy, doors.names, std::move(fds)));
  EXPECT_OK(cgroup.clone_into_fd());
  ASSERT_OK(cgroup.Enter());
  EXPECT_EQ(ReadScope("cgroup.procs"), "0");
}

TEST_F(V2TreeTest, EntersAndShowsOneDirectory) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, kScope));
  EXPECT_THAT(Names(cgroup), ElementsAre(""));
  EXPECT_EQ(*cgroup.clone_into_fd(), cgroup.views().front().dir_fd);
  ASSERT_OK(cgroup.Enter());
  EXPECT_EQ(ReadScope("cgroup.procs"), "0");
}

TEST_F(V2TreeTest, ReadsUsageAndOomKills) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, kScope));
  EXPECT_THAT(cgroup.ReadUsage()->memory_usage_bytes, Optional(8192u));
  EXPECT_EQ(*cgroup.OomKills(), 1u);
}

TEST_F(V2TreeTest, ADirectoryOfOthersIsRefused) {
  EXPECT_THAT(CreateOn(host_, "nomad.slice/reserve.slice"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not the task's own")));
}

TEST_F(V2TreeTest, NomadsScopeSurvivesRemove) {
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, CreateOn(host_, kScope));
  ASSERT_OK(cgroup.Remove());
  EXPECT_TRUE(host_.Exists(kScope));
}

}  // namespace
}  // namespace jenkins_agent::cgroups
