#include "cgroups/hierarchy.h"

#include "tests/cgroups/fake_tree.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent::cgroups {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Hierarchy> DetectOn(const FakeHost& host) {
  return Hierarchy::Detect(host.proc_root(), host.cgroup_root());
}

TEST(HierarchyTest, FindsV1ControllersAndTheOwnPlaceInThem) {
  const FakeHost host({}, {kMountinfoV1, kProcCgroupV1});
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy, DetectOn(host));
  EXPECT_EQ(hierarchy.version(), Version::kV1);
  EXPECT_TRUE(hierarchy.Has("memory"));
  EXPECT_FALSE(hierarchy.Has("name=systemd"));
  EXPECT_FALSE(hierarchy.Has("rw"));
  EXPECT_FALSE(hierarchy.Has("net_cls"));
  EXPECT_EQ(hierarchy.ControllerPath("memory"), host.cgroup_root() + "/memory");
  EXPECT_EQ(hierarchy.ControllerPath("net_cls"), "");
  EXPECT_EQ(hierarchy.OuterPath("memory"), host.cgroup_root() + "/memory/agent/1");
  EXPECT_EQ(hierarchy.OuterPath("cpu"), host.cgroup_root() + "/cpu");
  EXPECT_EQ(hierarchy.Short(host.cgroup_root() + "/memory/nomad/x"), "memory/nomad/x");
}

TEST(HierarchyTest, AHybridHostIsV1) {
  const FakeHost host({}, {std::string(kMountinfoV1) + kMountinfoUnified, kProcCgroupV1});
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy, DetectOn(host));
  EXPECT_EQ(hierarchy.version(), Version::kV1);
  EXPECT_EQ(hierarchy.ControllerPath("memory"), host.cgroup_root() + "/memory");
}

TEST(HierarchyTest, FindsV2) {
  const FakeHost host(NomadTreeV2(), {kMountinfoV2, "0::/agent\n"});
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy, DetectOn(host));
  EXPECT_EQ(hierarchy.version(), Version::kV2);
  EXPECT_TRUE(hierarchy.Has("memory"));
  EXPECT_FALSE(hierarchy.Has("net_cls"));
  EXPECT_EQ(hierarchy.ControllerPath("pids"), host.cgroup_root());
  EXPECT_EQ(hierarchy.OuterPath(""), host.cgroup_root() + "/agent");
}

TEST(HierarchyTest, ControllersMountedTogetherShareTheMountPoint) {
  const FakeHost host({}, {"31 23 0:28 / @ rw - tmpfs tmpfs rw\n"
                           "32 31 0:29 / @/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
                           "1:cpu,cpuacct:/\n"});
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy, DetectOn(host));
  EXPECT_EQ(hierarchy.ControllerPath("cpu"), host.cgroup_root() + "/cpu,cpuacct");
  EXPECT_EQ(hierarchy.ControllerPath("cpuacct"), host.cgroup_root() + "/cpu,cpuacct");
}

TEST(HierarchyTest, SeesThroughABoundSubtreeAndACgroupNamespace) {
  const FakeHost host({}, {"31 23 0:28 / @ rw - tmpfs tmpfs rw\n"
                           "32 31 0:29 /docker/1 @/cpu rw - cgroup cgroup rw,cpu\n"
                           "33 31 0:30 / @/pids rw - cgroup cgroup rw,pids\n",
                           "1:cpu:/docker/1/sub\n2:pids:/../elsewhere\n"});
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy, DetectOn(host));
  EXPECT_EQ(hierarchy.OuterPath("cpu"), host.cgroup_root() + "/cpu/sub");
  EXPECT_EQ(hierarchy.OuterPath("pids"), host.cgroup_root() + "/pids");
}

TEST(HierarchyTest, AHostWithoutCgroupsIsNoError) {
  const FakeHost nothing({}, {"23 1 8:1 / / rw - ext4 /dev/vda rw\n", "0::/\n"});
  ASSERT_OK_AND_ASSIGN(const Hierarchy none, DetectOn(nothing));
  EXPECT_EQ(none.version(), Version::kNone);

  const FakeHost bare_tmpfs({}, {"31 23 0:28 / @ rw - tmpfs tmpfs rw\n", "0::/\n"});
  ASSERT_OK_AND_ASSIGN(const Hierarchy bare, DetectOn(bare_tmpfs));
  EXPECT_EQ(bare.version(), Version::kNone);
}

TEST(HierarchyTest, TheMountOnTopCountsAndBrokenLinesDoNot) {
  const FakeHost host(NomadTreeV2(), {std::string("\nx y\n1 2 3 - -\n") +
                                          "31 23 0:28 / @ rw - tmpfs tmpfs rw\n" + kMountinfoV2,
                                      "0::/\nbroken\n"});
  ASSERT_OK_AND_ASSIGN(const Hierarchy hierarchy, DetectOn(host));
  EXPECT_EQ(hierarchy.version(), Version::kV2);
}

TEST(HierarchyTest, AMissingProcIsAnError) {
  EXPECT_THAT(Hierarchy::Detect("/nonexistent"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/self/mountinfo")));
}

}  // namespace
}  // namespace jenkins_agent::cgroups
