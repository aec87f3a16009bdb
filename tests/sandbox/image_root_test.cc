// A task on an image, asked from inside a real sandbox. The image's lowest layer is busybox.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "driver/sandbox/overlay.h"
#include "driver/sandbox/seccomp.h"
#include "tests/sandbox/sandbox_run.h"
#include "tests/support/own_mounts.h"
#include "tests/support/requires.h"

namespace jenkins_agent {
namespace {

const auto* const kOwnMounts = testing::AddGlobalTestEnvironment(new OwnMounts);

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

void WriteFile(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << text;
}

std::string MountsOfTheHost() {
  std::ifstream file("/proc/self/mountinfo");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class ImageRootTest : public testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    if (!fs::exists(BUSYBOX)) GTEST_SKIP() << "needs busybox-static";
    ASSERT_EQ(::chmod(images_.path().c_str(), 0755), 0);
    fs::create_directories(Layer(0) + "/bin");
    fs::copy_file(BUSYBOX, Layer(0) + "/bin/sh");
    for (const char* name :
         {"ls", "cat", "id", "touch", "mkdir", "stat", "ln", "readlink", "rm", "dd"}) {
      fs::create_symlink("sh", Layer(0) + "/bin/" + name);
    }
    WriteFile(Layer(0) + "/etc/motd", "lower\n");
    WriteFile(Layer(0) + "/opt/kept", "kept\n");
    WriteFile(Layer(0) + "/opt/gone", "gone\n");
    sandbox_.rootfs().passwd = "ci:x:4711:4711::/home/ci:/bin/sh\n";
    sandbox_.rootfs().group = "";
  }

  std::string Layer(int number) {
    const std::string path = absl::StrCat(images_.path(), "/", number);
    fs::create_directories(path);
    return path;
  }
  std::string Ask(const std::string& script) {
    const SandboxResult result = sandbox_.Shell(script);
    EXPECT_EQ(result.exit_code, 0) << script << "\n" << result.output;
    return result.output;
  }

  static constexpr uint32_t kFirstHostId = 0x6FFE0000;
  void UseUserNamespace(uint32_t first_host_id) {
    sandbox_.user().clear_id_map();
    pb::IdRange& range = *sandbox_.user().add_id_map();
    range.set_outside(first_host_id);
    range.set_count(65536);
    sandbox_.spec().set_init_filter(InitFilter({}, /*user_namespace=*/true));
  }

  TempDir images_;
  TestSandbox sandbox_;
};

TEST_F(ImageRootTest, ShowsTheLayersAndNothingOfTheHost) {
  WriteFile(Layer(1) + "/etc/motd", "upper\n");
  ASSERT_EQ(::mknod((Layer(1) + "/opt").c_str(), S_IFCHR, ::makedev(0, 0)), 0);
  sandbox_.UseImage({Layer(1), Layer(0)});
  EXPECT_EQ(Ask("cat /etc/motd"), "upper\n");
  EXPECT_EQ(Ask("ls /opt 2>&1 || true"), "ls: /opt: No such file or directory\n");
  EXPECT_EQ(Ask("ls -d /usr /var /home 2>/dev/null || true"), "");
  EXPECT_THAT(Ask("cat /proc/self/mountinfo"),
              AllOf(HasSubstr("overlay"), Not(HasSubstr("/image "))));
}

TEST_F(ImageRootTest, HasWhatEverySandboxHas) {
  sandbox_.UseImage({Layer(0)});
  EXPECT_EQ(Ask("cat /etc/hostname; cat /etc/passwd"),
            "agent-1\nci:x:4711:4711::/home/ci:/bin/sh\n"
            "task-64321:x:64321:64322::/local:/bin/sh\n");
  EXPECT_THAT(Ask("cat /etc/hosts"), HasSubstr("agent-1"));
  Ask("echo x > /dev/null && echo x > /tmp/x && echo x > /local/x && ls /sys/class >/dev/null");
  EXPECT_EQ(Ask("set -- /proc/[0-9]*; echo $#"), "2\n");
  EXPECT_EQ(Ask("cat /proc/keys; ls /sys/firmware"), "");
  EXPECT_NE(sandbox_.Shell("echo 1 > /proc/sys/vm/overcommit_memory").exit_code, 0);
}

TEST_F(ImageRootTest, WhatATaskWritesIsItsOwnAndTheLayersStay) {
  fs::create_directories(Layer(0) + "/srv");
  fs::permissions(Layer(0) + "/srv", fs::perms::all);
  sandbox_.UseImage({Layer(0)});
  Ask("echo x > /srv/new");
  EXPECT_TRUE(fs::exists(sandbox_.RootfsDir() + "/upper/srv/new"));
  EXPECT_FALSE(fs::exists(Layer(0) + "/srv/new"));
  EXPECT_EQ(Ask("ls /srv"), "");  // the next task's
  EXPECT_EQ(Ask("stat -c %a:%u /"), "755:0\n");
}

TEST_F(ImageRootTest, AReadOnlyOneCannotBeWrittenToByRootEither) {
  sandbox_.UseImage({Layer(0)}, /*read_only=*/true);
  sandbox_.user().set_uid(0);
  sandbox_.user().set_gid(0);
  EXPECT_THAT(sandbox_.Shell("touch /opt/x").output, HasSubstr("Read-only file system"));
  Ask("touch /tmp/x");
  pb::MountSpec& mount = *sandbox_.spec().add_mounts();  // a job's, where the image has nothing
  mount.set_kind(pb::MountSpec::TMPFS);
  mount.set_target("/m2/cache");
  mount.set_no_links(true);
  Ask("touch /m2/cache/x");
}

TEST_F(ImageRootTest, WhatIsWrittenCanBeBounded) {
  fs::create_directories(Layer(0) + "/srv");
  fs::permissions(Layer(0) + "/srv", fs::perms::all);
  sandbox_.spec().mutable_image()->set_writable_bytes(1 << 20);
  sandbox_.UseImage({Layer(0)});
  EXPECT_THAT(sandbox_.Shell("dd if=/dev/zero of=/srv/big bs=65536 count=32").output,
              HasSubstr("No space left on device"));
  EXPECT_EQ(Ask("echo x > /srv/new; cat /srv/new; stat -c %a:%u /"), "x\n755:0\n");
  EXPECT_FALSE(fs::exists(sandbox_.RootfsDir() + "/upper"));
  UseUserNamespace(kFirstHostId);
  EXPECT_EQ(Ask("echo x > /srv/new; stat -c %u:%g /srv/new /"), "64321:64322\n0:0\n");
}

// More than fit into one page of options, and than an old kernel's one option.
TEST_F(ImageRootTest, ManyLayers) {
  std::vector<std::string> layers;
  for (int i = 60; i > 0; --i) {
    WriteFile(absl::StrCat(Layer(i), "/layers/", i), "");
    layers.push_back(Layer(i));
  }
  layers.push_back(Layer(0));
  sandbox_.UseImage(layers);
  EXPECT_EQ(Ask("set -- /layers/*; echo $#"), "60\n");
}

// The task's user is nobody on the host, and finds the image's files as the image has them.
class UserNamespaceImageTest : public ImageRootTest {
 protected:
  void SetUp() override {
    ImageRootTest::SetUp();
    if (IsSkipped()) return;
    UseUserNamespace(kFirstHostId);
    fs::create_directories(Layer(0) + "/srv");
    Own(Layer(0) + "/srv", 0755);
    WriteFile(Layer(0) + "/srv/own", "own\n");
    Own(Layer(0) + "/srv/own", 0600);
  }
  void Own(const std::string& path, mode_t mode) {
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
    ASSERT_EQ(::chown(path.c_str(), sandbox_.user().uid(), sandbox_.user().gid()), 0);
  }
  static uid_t OwnerOnDisk(const std::string& path) {
    struct stat found = {};
    EXPECT_EQ(::lstat(path.c_str(), &found), 0) << path;
    return found.st_uid;
  }
};

TEST_F(UserNamespaceImageTest, FilesKeepTheirOwners) {
  sandbox_.UseImage({Layer(0)});
  EXPECT_EQ(Ask("stat -c '%u %g' / /bin/sh /opt/kept /etc/passwd /srv /srv/own"),
            "0 0\n0 0\n0 0\n0 0\n64321 64322\n64321 64322\n");
  EXPECT_THAT(sandbox_.Shell("echo x > /opt/kept").output, HasSubstr("Permission denied"));
}

TEST_F(UserNamespaceImageTest, WhatItWritesBelongsToNobodyOfTheHost) {
  sandbox_.UseImage({Layer(0)});
  EXPECT_EQ(Ask("echo more >> /srv/own; cat /srv/own; echo x > /srv/new; mkdir /srv/d;"
                "stat -c '%a %u %g' /srv/own /srv/new /srv/d"),
            "own\nmore\n600 64321 64322\n644 64321 64322\n755 64321 64322\n");
  for (const char* path : {"own", "new", "d"}) {
    EXPECT_EQ(OwnerOnDisk(sandbox_.RootfsDir() + "/upper/srv/" + path), kFirstHostId + 64321);
  }
  EXPECT_EQ(OwnerOnDisk(Layer(0) + "/srv/own"), 64321u);
  EXPECT_EQ(Ask("cat /srv/own"), "own\n");  // the next task's
}

// No layer is copied or changed for it.
TEST_F(UserNamespaceImageTest, AnotherRangeOfIdsSharesTheLayers) {
  sandbox_.UseImage({Layer(0)});
  EXPECT_EQ(Ask("stat -c %u /srv/own"), "64321\n");
  UseUserNamespace(kFirstHostId - 0x20000);
  EXPECT_EQ(Ask("stat -c %u /srv/own"), "64321\n");
  EXPECT_EQ(Ask("touch /srv/new; stat -c %u /srv/new"), "64321\n");
  EXPECT_EQ(OwnerOnDisk(sandbox_.RootfsDir() + "/upper/srv/new"), kFirstHostId - 0x20000 + 64321);
}

TEST_F(UserNamespaceImageTest, ItsRootIsTheImagesRoot) {
  sandbox_.user().set_uid(0);
  sandbox_.user().set_gid(0);
  sandbox_.UseImage({Layer(0)});
  Ask("echo x > /opt/kept && echo x > /new && rm /opt/gone && mkdir /opt/d");
  EXPECT_EQ(OwnerOnDisk(sandbox_.RootfsDir() + "/upper/opt/kept"), kFirstHostId);
  EXPECT_EQ(OwnerOnDisk(sandbox_.RootfsDir() + "/upper/new"), kFirstHostId);
}

TEST_F(UserNamespaceImageTest, AReadOnlyOneCanBeReadByItsOwner) {
  sandbox_.UseImage({Layer(0)}, /*read_only=*/true);
  EXPECT_EQ(Ask("cat /srv/own"), "own\n");
  EXPECT_THAT(sandbox_.Shell("touch /srv/x").output, HasSubstr("Read-only file system"));
}

TEST_F(UserNamespaceImageTest, AJobsMountsAreMadeInIt) {
  sandbox_.UseImage({Layer(0)});
  pb::MountSpec& mount = *sandbox_.spec().add_mounts();
  mount.set_kind(pb::MountSpec::TMPFS);
  mount.set_target("/m2/cache");
  mount.set_mode(01777);
  mount.set_no_links(true);
  Ask("touch /m2/cache/x");
}

// ramfs has no id-mapped mounts.
TEST_F(UserNamespaceImageTest, AStoreThatCannotMapIdsIsNamedWithTheReason) {
  ASSERT_TRUE(BecomeSharedHost());
  const std::string layer = Layer(1);
  ASSERT_EQ(::mount("ramfs", layer.c_str(), "ramfs", 0, nullptr), 0);
  sandbox_.UseImage({layer, Layer(0)});
  const SandboxResult result = sandbox_.Shell("true");
  EXPECT_EQ(result.exit_code, kSetupFailed);
  EXPECT_THAT(result.output, HasSubstr("image: " + layer +
                                       ": its file system has no id-mapped mounts on this "
                                       "kernel, which userns needs"));
  ASSERT_EQ(::umount(layer.c_str()), 0);
}

// Attempts 43 and 44 on an image: links where the sandbox's own things go. With and without a user
// namespace.
class HostileImageTest : public ImageRootTest, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    ImageRootTest::SetUp();
    if (IsSkipped()) return;
    if (GetParam()) UseUserNamespace(kFirstHostId);
    fs::create_directories(canary_.path() + "/etc");
    ASSERT_TRUE(BecomeSharedHost());
    before_ = MountsOfTheHost();
  }
  void TearDown() override {
    if (IsSkipped()) return;
    EXPECT_EQ(MountsOfTheHost(), before_);
    EXPECT_TRUE(fs::is_empty(canary_.path() + "/etc"));
    EXPECT_EQ(std::distance(fs::directory_iterator(canary_.path()), {}), 1);
  }
  void Link(const std::string& path, const std::string& to) {
    fs::remove_all(Layer(0) + path);
    fs::create_directories(fs::path(Layer(0) + path).parent_path());
    fs::create_symlink(to, Layer(0) + path);
  }

  TempDir canary_;
  std::string before_;
};

TEST_P(HostileImageTest, LinksInPlaceOfTheSandboxsDirectoriesAreHidden) {
  for (const std::string& to :
       std::vector<std::string>{canary_.path(), "/alloc", "/", "../../../..", "/proc/self/root",
                                "/proc/1/root", "/dangling"}) {
    for (const char* path : {"/proc", "/dev", "/sys", "/run", "/tmp", "/local", "/alloc", "/etc"}) {
      Link(path, to);
    }
    sandbox_.UseImage({Layer(0)});
    EXPECT_EQ(Ask("for d in /proc /dev /sys /run /tmp /local /alloc /etc; do\n"
                  "  test -d $d && test ! -L $d || echo $d; done"),
              "")
        << to;
    EXPECT_THAT(Ask("cat /proc/self/mountinfo"), HasSubstr(" /proc rw")) << to;
  }
}

TEST_P(HostileImageTest, LinksInPlaceOfItsFilesAreHidden) {
  WriteFile(canary_.path() + "/../canary", "");
  for (const char* path : {"/etc/hosts", "/etc/hostname", "/etc/passwd", "/etc/resolv.conf"}) {
    Link(path, canary_.path() + "/etc/hosts");
  }
  Link("/run", "/local");
  sandbox_.UseImage({Layer(0)});
  EXPECT_EQ(Ask("cat /etc/hostname; test -L /etc/hosts || echo file"), "agent-1\nfile\n");
}

TEST_P(HostileImageTest, FilesInPlaceOfDirectoriesAreHidden) {
  for (const char* path : {"/proc", "/dev", "/tmp"}) WriteFile(Layer(0) + path, "no directory");
  sandbox_.UseImage({Layer(0)});
  Ask("test -d /proc && test -c /dev/null && touch /tmp/x");
}

TEST_P(HostileImageTest, AJobsMountFollowsNoLinkOfTheImage) {
  Link("/cache", canary_.path() + "/etc");
  pb::MountSpec& mount = *sandbox_.spec().add_mounts();
  mount.set_kind(pb::MountSpec::TMPFS);
  mount.set_target("/cache/m2");
  mount.set_no_links(true);
  sandbox_.UseImage({Layer(0)});
  const SandboxResult result = sandbox_.Shell("true");
  EXPECT_EQ(result.exit_code, kSetupFailed);
  EXPECT_THAT(result.output, HasSubstr("a symbolic link on the way"));
}

TEST_P(HostileImageTest, SetUidAndDevicesOfAnImageAreOfNoUse) {
  ASSERT_EQ(::mknod((Layer(0) + "/null").c_str(), S_IFCHR | 0666, ::makedev(1, 3)), 0);
  ASSERT_EQ(::chmod((Layer(0) + "/null").c_str(), 0666), 0);
  fs::remove(Layer(0) + "/bin/id");
  fs::copy_file(BUSYBOX, Layer(0) + "/bin/id");
  ASSERT_EQ(::chmod((Layer(0) + "/bin/id").c_str(), 04755), 0);
  sandbox_.UseImage({Layer(0)});
  EXPECT_THAT(sandbox_.Shell("echo x > /null").output, HasSubstr("Permission denied"));
  EXPECT_EQ(Ask("id -u"), "64321\n");
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutUserns, HostileImageTest, testing::Bool(),
                         testing::PrintToStringParamName());

TEST(OverlayTest, AMissingLayerIsNamed) {
  REQUIRES_ROOT();
  pb::ImageRoot image;
  image.add_layers("/nonexistent/layer");
  EXPECT_THAT(std::string(OpenOverlayParts(image, -1, 0).status().message()),
              HasSubstr("/nonexistent/layer"));
}

}  // namespace
}  // namespace jenkins_agent
