#include "driver/sandbox/template_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class TemplatePlanTest : public testing::Test {
 protected:
  pb::MountSpec& Add(pb::MountSpec::Kind kind, const std::string& target) {
    pb::MountSpec& entry = *sandbox_.add_mounts();
    entry.set_kind(kind);
    entry.set_target(target);
    return entry;
  }
  pb::MountSpec& AddShared(pb::MountSpec::Kind kind, const std::string& target) {
    pb::MountSpec& entry = Add(kind, target);
    entry.set_shared(true);
    return entry;
  }
  void Divide() { template_ = TakeTemplate(sandbox_, user_); }

  static std::vector<std::string> Lines(
      const google::protobuf::RepeatedPtrField<pb::MountSpec>& entries) {
    std::vector<std::string> lines;
    for (const pb::MountSpec& entry : entries) {
      lines.push_back(absl::StrCat(pb::MountSpec::Kind_Name(entry.kind()), " ", entry.target()));
    }
    return lines;
  }
  std::vector<std::string> Shared() const { return Lines(template_.mounts()); }
  std::vector<std::string> Own() const { return Lines(sandbox_.mounts()); }

  pb::SandboxSpec sandbox_;
  pb::UserSpec user_;
  pb::TemplateSpec template_;
};

TEST_F(TemplatePlanTest, WhatIsTheTasksGetsAMountPoint) {
  AddShared(pb::MountSpec::BIND, "/usr").set_source("/usr");
  Add(pb::MountSpec::SYMLINK, "/bin").set_source("usr/bin");
  Add(pb::MountSpec::TMPFS, "/tmp");
  Add(pb::MountSpec::PROC, "/proc");
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("BIND /usr", "SYMLINK /bin", "DIRECTORY_POINT /tmp",
                                    "DIRECTORY_POINT /proc"));
  EXPECT_THAT(Own(), ElementsAre("TMPFS /tmp", "PROC /proc"));
}

TEST_F(TemplatePlanTest, InsideOfItsMountsEverythingStaysWithTheTask) {
  Add(pb::MountSpec::BIND, "/local").set_source("/");
  Add(pb::MountSpec::FILE, "/local/file");
  Add(pb::MountSpec::SYMLINK, "/local/link");
  AddShared(pb::MountSpec::BIND, "/local/view").set_source("/usr");
  Add(pb::MountSpec::TMPFS, "/localhost");
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("DIRECTORY_POINT /local", "DIRECTORY_POINT /localhost"));
  EXPECT_THAT(Own(), ElementsAre("BIND /local", "FILE /local/file", "SYMLINK /local/link",
                                 "BIND /local/view", "TMPFS /localhost"));
}

TEST_F(TemplatePlanTest, NothingIsMadeInsideOfSharedMounts) {
  AddShared(pb::MountSpec::DEV, "/dev").set_read_only(true);
  Add(pb::MountSpec::DEVPTS, "/dev/pts");
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("DEV /dev"));
  EXPECT_THAT(Own(), ElementsAre("DEVPTS /dev/pts"));
}

TEST_F(TemplatePlanTest, FilesOfTheTaskAreLinksOfTheTemplate) {
  Add(pb::MountSpec::FILE, "/etc/passwd").set_content("one");
  pb::MountSpec& other = Add(pb::MountSpec::FILE, "/etc/other/passwd");
  other.set_content("two");
  other.set_mode(0600);
  other.set_uid(7);
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("SYMLINK /etc/passwd", "SYMLINK /etc/other/passwd",
                                    "DIRECTORY_POINT /etc/task"));
  EXPECT_EQ(template_.mounts(0).source(), "/etc/task/passwd");
  EXPECT_EQ(template_.mounts(1).source(), "/etc/task/passwd.2");
  ASSERT_THAT(Own(), ElementsAre("FILES /etc/task"));
  const auto& files = sandbox_.mounts(0).files();
  ASSERT_EQ(files.size(), 2);
  EXPECT_EQ(files[0].content(), "one");
  EXPECT_EQ(files[1].name(), "passwd.2");
  EXPECT_EQ(files[1].content(), "two");
  EXPECT_EQ(files[1].mode(), 0600u);
  EXPECT_EQ(files[1].uid(), 7u);
}

TEST_F(TemplatePlanTest, AVolumeMayReplaceAFileOfTheTask) {
  const TempDir host;
  std::ofstream(host.path() + "/hosts") << "x";
  Add(pb::MountSpec::FILE, "/etc/hosts");
  Add(pb::MountSpec::BIND, "/etc/hosts").set_source(host.path() + "/hosts");
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("FILE_POINT /etc/hosts"));
  EXPECT_THAT(Own(), ElementsAre("BIND /etc/hosts"));
}

TEST_F(TemplatePlanTest, BoundFilesGetFilesAndMissingOptionalOnesNothing) {
  const TempDir host;
  std::ofstream(host.path() + "/file") << "x";
  Add(pb::MountSpec::BIND, "/opt/file").set_source(host.path() + "/file");
  pb::MountSpec& optional = Add(pb::MountSpec::BIND, "/opt/missing");
  optional.set_source(host.path() + "/missing");
  optional.set_optional(true);
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("FILE_POINT /opt/file"));
  EXPECT_THAT(Own(), ElementsAre("BIND /opt/file"));
}

TEST_F(TemplatePlanTest, HiddenPathsGoWithTheTreeThatShowsThem) {
  AddShared(pb::MountSpec::SYSFS, "/sys");
  Add(pb::MountSpec::PROC, "/proc");
  for (const char* path : {"/sys/firmware", "/proc/kcore"}) sandbox_.add_masked_paths(path);
  for (const char* path : {"/sys/kernel", "/proc/sys"}) sandbox_.add_read_only_paths(path);
  Divide();
  EXPECT_THAT(template_.masked_paths(), ElementsAre("/sys/firmware"));
  EXPECT_THAT(template_.read_only_paths(), ElementsAre("/sys/kernel"));
  EXPECT_THAT(sandbox_.masked_paths(), ElementsAre("/proc/kcore"));
  EXPECT_THAT(sandbox_.read_only_paths(), ElementsAre("/proc/sys"));
}

TEST_F(TemplatePlanTest, ATaskWithANetworkOfItsOwnBringsItsSysAlong) {
  for (const bool made : {false, true}) {
    sandbox_.Clear();
    if (made) sandbox_.set_own_network(true);
    if (!made) sandbox_.set_network_namespace("/run/netns/x");
    AddShared(pb::MountSpec::SYSFS, "/sys");
    Add(pb::MountSpec::CGROUP, "/sys/fs/cgroup");
    sandbox_.add_masked_paths("/sys/firmware");
    Divide();
    EXPECT_THAT(Shared(), ElementsAre("DIRECTORY_POINT /sys"));
    EXPECT_THAT(Own(), ElementsAre("SYSFS /sys", "CGROUP /sys/fs/cgroup"));
    EXPECT_THAT(template_.masked_paths(), IsEmpty());
    EXPECT_THAT(sandbox_.masked_paths(), ElementsAre("/sys/firmware"));
  }
}

TEST_F(TemplatePlanTest, DevicesOfATaskStayWithIt) {
  pb::MountSpec& dev = AddShared(pb::MountSpec::DEV, "/dev");
  dev.set_read_only(true);
  dev.add_devices()->set_path("gpu");
  Add(pb::MountSpec::DEVPTS, "/dev/pts");
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("DIRECTORY_POINT /dev"));
  EXPECT_THAT(Own(), ElementsAre("DEV /dev", "DEVPTS /dev/pts"));
}

TEST_F(TemplatePlanTest, ADevThatCanBeWrittenIsTheTasksOwn) {
  AddShared(pb::MountSpec::DEV, "/dev");
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("DIRECTORY_POINT /dev"));
  EXPECT_THAT(Own(), ElementsAre("DEV /dev"));
}

TEST_F(TemplatePlanTest, BindsAreTheTasksWhereItsIdsAreMapped) {
  user_.add_id_map()->set_count(1);
  AddShared(pb::MountSpec::BIND, "/usr").set_source("/usr");
  AddShared(pb::MountSpec::DEV, "/dev").set_read_only(true);
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("DIRECTORY_POINT /usr", "DEV /dev"));
  EXPECT_THAT(Own(), ElementsAre("BIND /usr"));
}

TEST_F(TemplatePlanTest, AMountPointIsAsStrictAboutLinksAsItsMount) {
  Add(pb::MountSpec::TMPFS, "/a").set_no_links(true);
  Add(pb::MountSpec::TMPFS, "/b");
  Divide();
  ASSERT_THAT(Shared(), ElementsAre("DIRECTORY_POINT /a", "DIRECTORY_POINT /b"));
  EXPECT_TRUE(template_.mounts(0).no_links());
  EXPECT_FALSE(template_.mounts(1).no_links());
}

TEST_F(TemplatePlanTest, ASharedSysHoldsTheCgroupDirectories) {
  AddShared(pb::MountSpec::SYSFS, "/sys");
  Add(pb::MountSpec::CGROUP, "/sys/fs/cgroup");
  Divide();
  EXPECT_THAT(Shared(), ElementsAre("SYSFS /sys", "CGROUP /sys/fs/cgroup"));
  EXPECT_THAT(Own(), ElementsAre("CGROUP /sys/fs/cgroup"));
}

TEST_F(TemplatePlanTest, WhoMayRemountSharesItsRootWithNobody) {
  sandbox_.add_capabilities(CAP_CHOWN);
  Divide();
  EXPECT_FALSE(template_.single_use());
  sandbox_.add_capabilities(CAP_SYS_ADMIN);
  Divide();
  EXPECT_TRUE(template_.single_use());
  user_.add_id_map()->set_count(1);  // of a user namespace: nothing on the host's file systems
  Divide();
  EXPECT_FALSE(template_.single_use());
}

TEST_F(TemplatePlanTest, TasksOfOneKindHaveOneTemplate) {
  const auto plan = [](const std::string& source, const std::string& content) {
    pb::SandboxSpec sandbox;
    pb::MountSpec& bind = *sandbox.add_mounts();
    bind.set_target("/local");
    bind.set_source(source);
    pb::MountSpec& file = *sandbox.add_mounts();
    file.set_kind(pb::MountSpec::FILE);
    file.set_target("/etc/hosts");
    file.set_content(content);
    return TakeTemplate(sandbox, {}).SerializeAsString();
  };
  EXPECT_EQ(plan("/allocs/a", "127.0.1.1 a"), plan("/allocs/b", "127.0.1.1 b"));
}

}  // namespace
}  // namespace jenkins_agent
