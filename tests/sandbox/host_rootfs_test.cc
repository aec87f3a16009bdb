#include "driver/sandbox/host_rootfs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

// One line a mount; the fake tree's path reads HOST.
std::vector<std::string> Describe(const std::vector<pb::MountSpec>& mounts,
                                  const std::string& host_root) {
  static const char* const kKinds[] = {"bind", "tmpfs",  "proc", "sysfs", "devpts",   "mqueue",
                                       "dev",  "cgroup", "link", "file",  "directory"};
  std::vector<std::string> lines;
  for (const pb::MountSpec& mount : mounts) {
    std::string line = absl::StrCat(kKinds[mount.kind()], " ", mount.target());
    if (!mount.source().empty()) absl::StrAppend(&line, " <- ", mount.source());
    if (mount.read_only()) absl::StrAppend(&line, " ro");
    if (mount.no_exec()) absl::StrAppend(&line, " noexec");
    if (mount.optional()) absl::StrAppend(&line, " optional");
    if (mount.shared()) absl::StrAppend(&line, " shared");
    if (mount.mode() != 0) absl::StrAppend(&line, " ", absl::StrFormat("0%o", mount.mode()));
    if (mount.uid() != 0 || mount.gid() != 0) {
      absl::StrAppend(&line, " owner ", mount.uid(), ":", mount.gid());
    }
    if (mount.size_bytes() != 0) absl::StrAppend(&line, " size ", mount.size_bytes());
    if (!mount.content().empty()) {
      absl::StrAppend(&line, " '", absl::StrReplaceAll(mount.content(), {{"\n", "|"}}), "'");
    }
    lines.push_back(absl::StrReplaceAll(line, {{host_root, "HOST"}}));
  }
  return lines;
}

class HostRootfsTest : public testing::Test {
 protected:
  void SetUp() override {
    Directory("usr/lib");
    Directory("etc");
  }
  void Directory(const std::string& path) { fs::create_directories(root_.path() + "/" + path); }
  void File(const std::string& path, const std::string& content) {
    Directory(fs::path(path).parent_path());
    std::ofstream(root_.path() + "/" + path) << content;
  }
  void Link(const std::string& path, const std::string& text) {
    fs::create_symlink(text, root_.path() + "/" + path);
  }
  HostRootfs Rootfs() const {
    return {.alloc_dir = "/nomad/a/alloc",
            .logs_dir = "/nomad/a/alloc/logs",
            .local_dir = "/nomad/a/t/local",
            .secrets_dir = "/nomad/a/t/secrets",
            .jar_dir = "",
            .extra_read_only = {},
            .uid = 700,
            .gid = 800,
            .user_name = "ci",
            .home = "/local",
            .hostname = "agent-1",
            .tmp_size_bytes = 1000,
            .shm_size_bytes = 2000,
            .resolv_conf_content = "",
            .hosts_content = "",
            .extra_hosts = "",
            .host_root = root_.path()};
  }
  std::vector<std::string> Plan(const HostRootfs& rootfs) {
    absl::StatusOr<std::vector<pb::MountSpec>> plan = PlanHostRootfs(rootfs);
    EXPECT_OK(plan);
    return plan.ok() ? Describe(*plan, root_.path()) : std::vector<std::string>();
  }

  TempDir root_;
};

TEST_F(HostRootfsTest, MergedUsrGolden) {
  for (const std::string name : {"bin", "sbin", "lib", "lib64"}) Link(name, "usr/" + name);
  File("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
  File("etc/group", "root:x:0:\n");
  File("etc/hosts", "127.0.0.1 localhost");
  File("etc/shadow", "secret");
  File("etc/ssl/private/key.pem", "secret");
  File("etc/ssl/certs/ca.pem", "");
  File("etc/ssl/openssl.cnf", "");
  File("etc/nsswitch.conf", "");
  File("etc/ld.so.cache", "");
  Directory("etc/ld.so.conf.d");
  Directory("etc/alternatives");
  Directory("etc/java-17-openjdk");
  Directory("etc/java");
  Link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC");
  Link("etc/os-release", "../usr/lib/os-release");
  Link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");

  EXPECT_THAT(
      Plan(Rootfs()),
      testing::ElementsAre(
          "bind /usr <- HOST/usr ro shared", "link /bin <- usr/bin", "link /sbin <- usr/sbin",
          "link /lib <- usr/lib", "link /lib64 <- usr/lib64",
          "file /etc/passwd 0644 'root:x:0:0:root:/root:/bin/bash|ci:x:700:800::/local:/bin/sh|'",
          "file /etc/group 0644 'root:x:0:|ci:x:800:|'",
          "bind /etc/alternatives <- HOST/etc/alternatives ro shared",
          "bind /etc/ld.so.cache <- HOST/etc/ld.so.cache ro shared",
          "bind /etc/ld.so.conf.d <- HOST/etc/ld.so.conf.d ro shared",
          "link /etc/localtime <- /usr/share/zoneinfo/Etc/UTC",
          "bind /etc/nsswitch.conf <- HOST/etc/nsswitch.conf ro shared",
          "link /etc/os-release <- ../usr/lib/os-release",
          "bind /etc/ssl/certs <- HOST/etc/ssl/certs ro shared",
          "bind /etc/ssl/openssl.cnf <- HOST/etc/ssl/openssl.cnf ro shared",
          "bind /etc/java <- HOST/etc/java ro shared",
          "bind /etc/java-17-openjdk <- HOST/etc/java-17-openjdk ro shared",
          "bind /etc/resolv.conf <- HOST/etc/resolv.conf ro optional shared",
          "file /etc/hosts 0644 '127.0.0.1 localhost|127.0.1.1 agent-1|'",
          "file /etc/hostname 0644 'agent-1|'", "tmpfs /tmp 01777 size 1000", "proc /proc",
          "dev /dev ro shared", "devpts /dev/pts", "tmpfs /dev/shm noexec 01777 size 2000",
          "mqueue /dev/mqueue", "sysfs /sys ro shared", "bind /alloc <- /nomad/a/alloc",
          "bind /alloc/logs <- /nomad/a/alloc/logs ro", "bind /local <- /nomad/a/t/local",
          "bind /secrets <- /nomad/a/t/secrets", "tmpfs /run 0755 size 1048576",
          "tmpfs /run/jenkins-agent noexec 02750 owner 0:800 size 1048576", "link /var/run <- /run",
          "link /var/tmp <- /tmp", "cgroup /sys/fs/cgroup ro"));
}

TEST_F(HostRootfsTest, AnOldLayoutIsBoundTreeByTree) {
  Directory("bin");
  Directory("lib");
  const std::vector<std::string> plan = Plan(Rootfs());
  EXPECT_THAT(plan, Contains("bind /bin <- HOST/bin ro shared"));
  EXPECT_THAT(plan, Contains("bind /lib <- HOST/lib ro shared"));
  EXPECT_THAT(plan, Not(Contains(HasSubstr("/sbin"))));
}

TEST_F(HostRootfsTest, JarAndExtraTreesAreReadOnly) {
  HostRootfs rootfs = Rootfs();
  rootfs.jar_dir = "/state/jar";
  rootfs.extra_read_only = {"/opt/jdk", "/usr/lib/jvm/jdk"};
  const std::vector<std::string> plan = Plan(rootfs);
  EXPECT_THAT(plan, Contains("bind /run/jenkins-agent/jar <- /state/jar ro"));
  EXPECT_THAT(plan, Contains("bind /opt/jdk <- HOST/opt/jdk ro shared"));
  EXPECT_THAT(plan, Not(Contains(HasSubstr("/usr/lib/jvm"))));
}

TEST_F(HostRootfsTest, NomadsDnsReplacesTheHosts) {
  File("etc/resolv.conf", "nameserver 1.1.1.1\n");
  HostRootfs rootfs = Rootfs();
  rootfs.resolv_conf_content = "nameserver 9.9.9.9\n";
  rootfs.hosts_content = "10.0.0.1 me\n";
  const std::vector<std::string> plan = Plan(rootfs);
  EXPECT_THAT(plan, Contains("file /etc/resolv.conf 0644 'nameserver 9.9.9.9|'"));
  EXPECT_THAT(plan, Contains("file /etc/hosts 0644 '10.0.0.1 me|'"));
  EXPECT_THAT(plan, Not(Contains(HasSubstr("HOST/etc/resolv.conf"))));
}

TEST_F(HostRootfsTest, AHomeElsewhereIsTheTasksOwn) {
  HostRootfs rootfs = Rootfs();
  rootfs.home = "/home/ci";
  EXPECT_THAT(Plan(rootfs), Contains("tmpfs /home/ci 0700 owner 700:800 size 1000"));
  rootfs.home = "/usr/lib/ci";
  EXPECT_THAT(Plan(rootfs), Not(Contains(HasSubstr("owner 700"))));
}

TEST_F(HostRootfsTest, CraftedNamesAndPathsAreRefused) {
  auto refused = [this](auto change) {
    HostRootfs rootfs = Rootfs();
    change(rootfs);
    EXPECT_EQ(PlanHostRootfs(rootfs).status().code(), absl::StatusCode::kInvalidArgument);
  };
  refused([](HostRootfs& r) { r.user_name = "x:0:0\nroot"; });
  refused([](HostRootfs& r) { r.hostname = "a\n1.2.3.4 controller"; });
  refused([](HostRootfs& r) { r.local_dir = "relative"; });
  refused([](HostRootfs& r) { r.home = "/home/../etc"; });
  refused([](HostRootfs& r) { r.extra_read_only = {"/opt//jdk"}; });
}

TEST_F(HostRootfsTest, AHostWithoutUsrIsRefused) {
  fs::remove_all(root_.path() + "/usr");
  EXPECT_THAT(PlanHostRootfs(Rootfs()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no /usr")));
}

TEST(DefaultPaths, NameWhatTheKernelShowsOrChanges) {
  std::vector<std::string> masked = {
      "/proc/acpi",        "/proc/asound",  "/proc/interrupts",
      "/proc/kcore",       "/proc/keys",    "/proc/latency_stats",
      "/proc/sched_debug", "/proc/scsi",    "/proc/timer_list",
      "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap"};
  for (const auto& entry : fs::directory_iterator("/sys/devices/system/cpu")) {
    const fs::path throttle = entry.path() / "thermal_throttle";
    if (fs::exists(throttle)) masked.push_back(throttle);
  }
  EXPECT_THAT(DefaultMaskedPaths(), testing::UnorderedElementsAreArray(masked));
  EXPECT_THAT(DefaultReadOnlyPaths(),
              testing::UnorderedElementsAre("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                            "/proc/sysrq-trigger"));
}

}  // namespace
}  // namespace jenkins_agent
