// What a payload sees of the host, asked from inside a real sandbox.
#include "driver/sandbox/root.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_split.h"
#include "driver/base/fd.h"
#include "tests/sandbox/sandbox_run.h"
#include "tests/support/requires.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

class RootTest : public testing::Test {
 protected:
  void SetUp() override { REQUIRES_ROOT(); }

  // The output of a script that is expected to succeed.
  std::string Ask(const std::string& script) {
    const SandboxResult result = sandbox_.Shell(script);
    EXPECT_EQ(result.exit_code, 0) << script << "\n" << result.output;
    return result.output;
  }
  // A script that is expected to fail; the sandbox itself must stand.
  std::string Refused(const std::string& script) {
    const SandboxResult result = sandbox_.Shell(script);
    EXPECT_NE(result.exit_code, 0) << script << "\n" << result.output;
    EXPECT_NE(result.exit_code, kSetupFailed) << result.output;
    return result.output;
  }
  pb::MountSpec& AddMount(pb::MountSpec::Kind kind, const std::string& target) {
    pb::MountSpec& mount = *sandbox_.spec().add_mounts();
    mount.set_kind(kind);
    mount.set_target(target);
    return mount;
  }

  TestSandbox sandbox_;
};

TEST_F(RootTest, SystemDirectoriesAreReadOnly) {
  EXPECT_EQ(Ask("for d in / /etc /usr /usr/bin /dev /sys /run /run/jenkins-agent /alloc/logs; do\n"
                "  touch $d/x 2>/dev/null && echo writable: $d; done; true"),
            "");
}

TEST_F(RootTest, RootItselfCouldNotWriteThemEither) {
  sandbox_.user().set_uid(0);
  sandbox_.user().set_gid(0);
  EXPECT_THAT(Refused("touch /x"), HasSubstr("Read-only file system"));
  EXPECT_THAT(Refused("touch /usr/x"), HasSubstr("Read-only file system"));
  EXPECT_THAT(Refused("echo 1 > /proc/sys/vm/overcommit_memory"),
              HasSubstr("Read-only file system"));
}

TEST_F(RootTest, OwnDirectoriesAreWritable) {
  Ask("for d in /tmp /var/tmp /dev/shm /local /alloc /secrets; do echo x > $d/x || exit 1; done");
  EXPECT_TRUE(fs::exists(sandbox_.directory() + "/local/x"));
  EXPECT_TRUE(fs::exists(sandbox_.directory() + "/alloc/x"));
  EXPECT_FALSE(fs::exists("/tmp/x"));
}

TEST_F(RootTest, TmpIsBounded) {
  EXPECT_THAT(Refused("head -c 20000000 /dev/zero > /tmp/big"), HasSubstr("No space left"));
  EXPECT_EQ(Ask("stat -c %a /tmp /dev/shm"), "1777\n1777\n");
}

TEST_F(RootTest, HostProcessesAreInvisible) {
  // pid 1 and the shell with its child.
  EXPECT_EQ(Ask("set -- /proc/[0-9]*; echo $#; echo $$"), "2\n2\n");
}

TEST_F(RootTest, HostMountsAreInvisible) {
  const std::string mounts = Ask("cat /proc/self/mountinfo");
  EXPECT_THAT(mounts, Not(HasSubstr(" /old")));
  const std::vector<std::string> ours = {"/usr", "/etc/",  "/tmp",   "/proc",    "/dev",
                                         "/sys", "/alloc", "/local", "/secrets", "/run"};
  for (absl::string_view line : absl::StrSplit(mounts, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    const std::string& point = fields.at(4);
    bool planned = point == "/";
    for (const std::string& prefix : ours) planned |= point.compare(0, prefix.size(), prefix) == 0;
    EXPECT_TRUE(planned) << line;
    EXPECT_THAT(fields.at(5), HasSubstr("nosuid")) << line;
  }
  EXPECT_EQ(Ask("ls -A / | tr '\\n' ' '").find("work"), std::string::npos);
}

TEST_F(RootTest, TheHostsMountsStayAsTheyAre) {
  auto mounts = [] {
    std::ifstream file("/proc/self/mountinfo");
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string before = mounts();
  Ask("true");
  EXPECT_EQ(mounts(), before);
}

TEST_F(RootTest, EtcIsAnAllowList) {
  EXPECT_EQ(Ask("ls /etc/shadow /etc/ssl/private /root /var/lib 2>/dev/null; true"), "");
  EXPECT_THAT(Ask("tail -n 1 /etc/passwd; tail -n 1 /etc/group"),
              "ci:x:64321:64322::/local:/bin/sh\nci:x:64322:\n");
  EXPECT_EQ(Ask("hostname; cat /etc/hostname; getent ahosts agent-1 | head -n 1"),
            "agent-1\nagent-1\n127.0.1.1       STREAM agent-1\n");
}

TEST_F(RootTest, DevicesWork) {
  EXPECT_EQ(Ask("head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null\n"
                "echo x 2>/dev/null > /dev/full || echo full; readlink /dev/fd /dev/ptmx\n"
                "ls /dev | tr '\\n' ' '"),
            "4\n4\nfull\n/proc/self/fd\npts/ptmx\n"
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ");
}

TEST_F(RootTest, MaskedPathsAreEmpty) {
  for (const std::string path : {"/proc/kcore", "/proc/interrupts", "/proc/keys"}) {
    if (!fs::exists(path)) continue;
    EXPECT_EQ(Ask("cat " + path), "");
  }
  EXPECT_EQ(Ask("ls -A /sys/firmware 2>/dev/null; true"), "");
}

TEST_F(RootTest, AllMaskedDirectoriesShareOneEmptyOne) {
  for (const char* path : {"/sys/kernel", "/sys/class", "/sys/bus"}) {
    sandbox_.spec().add_masked_paths(path);
  }
  EXPECT_EQ(Ask("ls -A /sys/kernel /sys/class /sys/bus | grep -v : | grep ."
                " || stat -c %d /sys/kernel /sys/class /sys/bus | uniq | wc -l"),
            "1\n");
}

TEST_F(RootTest, KernelSettingsCannotBeChanged) {
  Refused("echo 1 > /proc/sys/kernel/core_pattern");
  Refused("echo b > /proc/sysrq-trigger");
  EXPECT_THAT(Ask("grep ' /proc/sys ' /proc/self/mountinfo"), HasSubstr("ro,nosuid,nodev,noexec"));
}

TEST_F(RootTest, RunDirectoryIsReadableByTheGroupOnly) {
  EXPECT_EQ(Ask("stat -c '%a %u %g' /run/jenkins-agent"), "2750 0 64322\n");
  sandbox_.rootfs().jar_dir = sandbox_.directory() + "/jar";
  fs::create_directory(sandbox_.rootfs().jar_dir);
  std::ofstream(sandbox_.rootfs().jar_dir + "/agent.jar") << "jar";
  EXPECT_EQ(Ask("cat /run/jenkins-agent/jar/agent.jar"), "jar");
}

TEST_F(RootTest, CgroupDirectoriesAreReadOnlyViews) {
  REQUIRES_PATH("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  const Fd memory(::open("/sys/fs/cgroup/memory", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const Fd cpu(::open("/sys/fs/cgroup/cpu", O_PATH | O_DIRECTORY | O_CLOEXEC));
  sandbox_.cgroups() = {{"memory", memory.get()}, {"cpu", cpu.get()}};
  sandbox_.user().set_uid(0);
  EXPECT_EQ(Ask("ls /sys/fs/cgroup; cat /sys/fs/cgroup/memory/memory.limit_in_bytes > /dev/null"),
            "cpu\nmemory\n");
  EXPECT_THAT(Refused("echo 1 > /sys/fs/cgroup/memory/tasks"), HasSubstr("Read-only file system"));
}

TEST_F(RootTest, ASingleHierarchyIsTheWholeView) {
  const std::string tree = sandbox_.directory() + "/cgroup";
  fs::create_directory(tree);
  std::ofstream(tree + "/memory.max") << "max\n";
  const Fd directory(::open(tree.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  sandbox_.cgroups() = {{"", directory.get()}};
  EXPECT_EQ(Ask("cat /sys/fs/cgroup/memory.max"), "max\n");
}

TEST_F(RootTest, OptionalBindsMayBeMissingOthersNot) {
  pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/opt/x");
  mount.set_source(sandbox_.directory() + "/missing");
  mount.set_optional(true);
  EXPECT_EQ(Ask("ls -d /opt/x 2>/dev/null; true"), "");
  mount.set_optional(false);
  const SandboxResult result = sandbox_.Shell("true");
  EXPECT_EQ(result.exit_code, kSetupFailed);
  EXPECT_EQ(result.output, "sandbox: mount /opt/x: open " + sandbox_.directory() +
                               "/missing: No such file or directory\n");
}

TEST_F(RootTest, SubmountsComeAlongWithTheirFlags) {
  pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/local/in/view");
  mount.set_source("/sys/kernel");
  mount.set_read_only(true);
  mount.set_no_exec(true);
  EXPECT_THAT(Ask("grep ' /local/in/view ' /proc/self/mountinfo"),
              HasSubstr("ro,nosuid,nodev,noexec"));
}

TEST_F(RootTest, DirectoriesAndLinksOfThePlan) {
  pb::MountSpec& directory = AddMount(pb::MountSpec::DIRECTORY, "/srv/deep/own");
  directory.set_uid(7);
  directory.set_gid(8);
  directory.set_mode(0750);
  AddMount(pb::MountSpec::SYMLINK, "/srv/link").set_source("deep/own");
  EXPECT_EQ(Ask("stat -c '%a %u %g' /srv/deep /srv/deep/own; readlink /srv/link"),
            "755 0 0\n750 7 8\ndeep/own\n");
}

// A task that ran before left links where the next start mounts.
class HostileTargetTest : public RootTest {
 protected:
  void SetUp() override {
    RootTest::SetUp();
    fs::create_directory(Host("victim"));
    fs::create_directory(Host("source"));
  }
  std::string Host(const std::string& name) { return sandbox_.directory() + "/" + name; }
  void Trap(const std::string& text) { fs::create_symlink(text, Host("local/trap")); }
  void ExpectVictimUntouched() {
    EXPECT_TRUE(fs::is_empty(Host("victim")));
    struct stat found = {};
    ASSERT_EQ(::stat(Host("victim").c_str(), &found), 0);
    EXPECT_EQ(found.st_uid, 0u);
  }
};

TEST_F(HostileTargetTest, ALinkToTheHostIsRefused) {
  Trap(Host("victim"));
  AddMount(pb::MountSpec::BIND, "/local/trap/x").set_source(Host("source"));
  const SandboxResult result = sandbox_.Shell("true");
  EXPECT_EQ(result.exit_code, kSetupFailed) << result.output;
  EXPECT_THAT(result.output, HasSubstr("sandbox: mount /local/trap/x: "));
  ExpectVictimUntouched();
}

TEST_F(HostileTargetTest, ALinkThroughDotDotStaysInside) {
  Trap("../../../../../../tmp");
  AddMount(pb::MountSpec::TMPFS, "/local/trap/made");
  EXPECT_EQ(Ask("ls /tmp"), "made\n");
  EXPECT_FALSE(fs::exists("/tmp/made"));
}

TEST_F(HostileTargetTest, MagicLinksAreRefused) {
  Trap("/proc/self/cwd");
  AddMount(pb::MountSpec::TMPFS, "/local/trap/x");
  EXPECT_EQ(sandbox_.Shell("true").exit_code, kSetupFailed);
}

TEST_F(HostileTargetTest, FilesNeverReplaceOrFollow) {
  Trap(Host("victim") + "/file");
  AddMount(pb::MountSpec::FILE, "/local/trap").set_content("x");
  EXPECT_EQ(sandbox_.Shell("true").exit_code, kSetupFailed);
  ExpectVictimUntouched();
}

TEST_F(HostileTargetTest, DirectoriesNeverChangeOwnersElsewhere) {
  Trap("/alloc");
  pb::MountSpec& directory = AddMount(pb::MountSpec::DIRECTORY, "/local/trap");
  directory.set_uid(12345);
  EXPECT_EQ(Ask("stat -c %u /alloc"), "64321\n");
}

TEST_F(HostileTargetTest, TargetsWithDotDotAreRefused) {
  AddMount(pb::MountSpec::TMPFS, "/local/../etc/x");
  const SandboxResult result = sandbox_.Shell("true");
  EXPECT_EQ(result.exit_code, kSetupFailed);
  EXPECT_THAT(result.output, HasSubstr("not a plain path"));
}

// Swaps a directory with a link, again and again. A process: the sandbox is forked
// from this one, which must stay single-threaded.
class Swapper {
 public:
  static constexpr useconds_t kSwapMicroseconds = 20;  // a lookup takes some; faster starves all
  Swapper(const std::string& directory, const std::string& link) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      ::renameat2(AT_FDCWD, directory.c_str(), AT_FDCWD, link.c_str(), RENAME_EXCHANGE);
      ::usleep(kSwapMicroseconds);
    }
  }
  ~Swapper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Swapper(const Swapper&) = delete;
  Swapper& operator=(const Swapper&) = delete;

 private:
  const pid_t pid_;
};

TEST_F(HostileTargetTest, ATargetThatIsSwappedDuringTheStartLeadsNowhere) {
  constexpr int kStartsEach = 10;  // 1000 and more: --gtest_repeat
  int stood = 0;
  int refused = 0;
  for (const std::string& text : {Host("victim"), "../../../../../.." + Host("victim")}) {
    for (const auto kind : {pb::MountSpec::TMPFS, pb::MountSpec::BIND, pb::MountSpec::DIRECTORY,
                            pb::MountSpec::FILE, pb::MountSpec::SYMLINK}) {
      fs::remove_all(Host("local"));
      fs::create_directories(Host("local/trap"));
      fs::create_symlink(text, Host("local/link"));
      sandbox_.spec().clear_mounts();
      pb::MountSpec& mount = AddMount(kind, "/local/trap/made");
      mount.set_source(Host("source"));
      mount.set_uid(12345);
      const Swapper swapper(Host("local/trap"), Host("local/link"));
      for (int i = 0; i < kStartsEach; ++i) {
        const SandboxResult result = sandbox_.Run({"/bin/true"});
        ASSERT_TRUE(result.exit_code == 0 || result.exit_code == kSetupFailed) << result.output;
        ++(result.exit_code == 0 ? stood : refused);
        fs::remove_all(Host("local/trap/made"));
      }
      ExpectVictimUntouched();
      EXPECT_TRUE(fs::is_empty(Host("source")));
    }
  }
  EXPECT_GT(stood, 0);
  EXPECT_GT(refused, 0);
}

// The directory that is bound, not where it goes: alloc/logs is every task's of the allocation.
TEST_F(HostileTargetTest, ASourceThatIsSwappedDuringTheStartShowsNothing) {
  std::ofstream(Host("victim/secret")) << "precious";
  fs::create_symlink(Host("victim"), Host("alloc/link"));
  const Swapper swapper(Host("alloc/logs"), Host("alloc/link"));
  int refused = 0;
  for (int i = 0; i < 25; ++i) {
    const SandboxResult result = sandbox_.Run({"/bin/ls", "/alloc/logs"});
    ASSERT_EQ(result.output.find("secret"), std::string::npos);
    refused += result.exit_code == kSetupFailed;
  }
  EXPECT_GT(refused, 0);
}

TEST(JoinNetworkNamespace, NamesWhatCouldNotBeJoined) {
  EXPECT_TRUE(JoinNetworkNamespace("").ok());
  EXPECT_THAT(std::string(JoinNetworkNamespace("/missing/ns").message()), HasSubstr("/missing/ns"));
  EXPECT_THAT(std::string(JoinNetworkNamespace("/dev/null").message()),
              HasSubstr("join network namespace /dev/null"));
}

}  // namespace
}  // namespace jenkins_agent
