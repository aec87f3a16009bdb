// What the device controller keeps from a task when nothing else does: a root with capabilities
// whose /dev can be written to, as it could make itself one with sys_admin.
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/sandbox/seccomp.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

class DeviceControl : public SupervisorTest {
 protected:
  void SetUp() override {
    SupervisorTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    // Without a file behind it a loop device has nothing to lose. Some hosts keep disks from root.
    for (const std::string name : {"/dev/loop0", "/dev/vda", "/dev/sda", "/dev/nvme0n1"}) {
      const auto opened = OpenFile(name, O_RDWR);
      if (opened.ok() && ::fstat(opened->get(), &disk_) == 0 && S_ISBLK(disk_.st_mode)) return;
    }
    GTEST_SKIP() << "needs a disk in /dev that root can open";
  }

  // Root without a task's read-only /dev.
  pb::LaunchSpec AsRoot(const std::string& script) {
    pb::LaunchSpec spec = Shell(script);
    spec.mutable_user()->set_uid(0);
    spec.mutable_user()->set_gid(0);
    const std::set<uint32_t> capabilities = {CAP_MKNOD, CAP_DAC_OVERRIDE};
    for (const uint32_t capability : capabilities) {
      spec.mutable_sandbox()->add_capabilities(capability);
    }
    spec.mutable_sandbox()->set_payload_filter(PayloadFilter(capabilities));
    spec.mutable_sandbox()->set_init_filter(InitFilter(capabilities));
    Dev(spec).set_read_only(false);
    return spec;
  }
  pb::LaunchSpec MakesTheDisk() {
    return AsRoot(absl::StrCat("mknod /dev/disk b ", major(disk_.st_rdev), " ",
                               minor(disk_.st_rdev),
                               " && echo made; head -c 1 /dev/disk > /dev/null && echo read; "
                               "head -c 1 /dev/zero > /dev/null && echo zero"));
  }
  static pb::MountSpec& Dev(pb::LaunchSpec& spec) {
    for (pb::MountSpec& mount : *spec.mutable_sandbox()->mutable_mounts()) {
      if (mount.kind() == pb::MountSpec::DEV) return mount;
    }
    return *spec.mutable_sandbox()->add_mounts();
  }
  void Run(const pb::LaunchSpec& spec) {
    ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
    ASSERT_TRUE(watcher().WaitExit());
    ExpectNothingLeft(status);
  }

  struct stat disk_ = {};
};

TEST_F(DeviceControl, TheHostsDiskCanBeMadeButNotOpened) {
  pb::LaunchSpec spec = MakesTheDisk();
  spec.mutable_cgroup()->mutable_device_control();
  ASSERT_NO_FATAL_FAILURE(Run(spec));
  EXPECT_EQ(Stdout(), "made\nzero\n");
  EXPECT_THAT(Stderr(), HasSubstr("'/dev/disk' for reading: Operation not permitted"));
}

// What the rules are for: nothing else would have kept this task from the disk.
TEST_F(DeviceControl, WithoutRulesTheDiskIsOpen) {
  ASSERT_NO_FATAL_FAILURE(Run(MakesTheDisk()));
  EXPECT_EQ(Stdout(), "made\nread\nzero\n") << Stderr();
}

TEST_F(DeviceControl, ADeviceToReadCannotBeWritten) {
  pb::LaunchSpec spec = AsRoot(
      "head -c 1 /dev/gpu/0 > /dev/null && echo read; (exec 3<>/dev/gpu/0) && echo writable");
  pb::DeviceSpec& device = *Dev(spec).add_devices();
  device.set_path("gpu/0");
  device.set_block(true);
  device.set_major_number(major(disk_.st_rdev));
  device.set_minor_number(minor(disk_.st_rdev));
  device.set_mode(0600);
  pb::DeviceRule& rule = *spec.mutable_cgroup()->mutable_device_control()->add_allowed();
  rule.set_type(pb::DeviceRule::BLOCK);
  rule.set_major(device.major_number());
  rule.set_minor(device.minor_number());
  rule.set_access("r");
  ASSERT_NO_FATAL_FAILURE(Run(spec));
  EXPECT_EQ(Stdout(), "read\n") << Stderr();
  EXPECT_THAT(Stderr(), HasSubstr("/dev/gpu/0: Operation not permitted"));
}

}  // namespace
}  // namespace jenkins_agent
