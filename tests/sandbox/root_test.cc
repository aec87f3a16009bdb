// What a payload sees of the host, asked from inside a real sandbox.
#include "driver/sandbox/root.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_split.h"
#include "driver/base/fd.h"
#include "driver/sandbox/seccomp.h"
#include "driver/sandbox/user_namespace.h"
#include "tests/sandbox/sandbox_run.h"
#include "tests/support/own_mounts.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

const auto* const kOwnMounts = testing::AddGlobalTestEnvironment(new OwnMounts);

using ::testing::AllOf;
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
  ASSERT_TRUE(BecomeSharedHost());
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

TEST_F(RootTest, OneTaskCannotTakeAllTerminalsOfTheHost) {
  EXPECT_THAT(Ask("grep ' /dev/pts ' /proc/self/mountinfo"), HasSubstr("max=256"));
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
            "cpu\ncpuacct\ncpuset\nmemory\n");
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

TEST_F(RootTest, AJobsMountTakesThePlaceOfAFileOfThePlan) {
  const std::string own = sandbox_.directory() + "/hosts";
  std::ofstream(own) << "192.0.2.1 job\n";
  pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/etc/hosts");
  mount.set_source(own);
  mount.set_no_links(true);
  EXPECT_EQ(Ask("cat /etc/hosts /etc/hostname"), "192.0.2.1 job\nagent-1\n");
}

TEST_F(RootTest, SubmountsComeAlongWithTheirFlags) {
  pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/local/in/view");
  mount.set_source("/sys/kernel");
  mount.set_read_only(true);
  mount.set_no_exec(true);
  EXPECT_THAT(Ask("grep ' /local/in/view ' /proc/self/mountinfo"),
              HasSubstr("ro,nosuid,nodev,noexec"));
}

TEST_F(RootTest, DevicesOfThePlanCanBeUsed) {
  pb::SandboxSpec& spec = sandbox_.spec();
  spec.clear_mounts();
  for (const auto& [path, uid] : {std::pair("gpu/0", 64321u), std::pair("other", 0u)}) {
    pb::DeviceSpec& device = *sandbox_.devices().Add();
    device.set_path(path);
    device.set_major_number(1);
    device.set_minor_number(5);
    device.set_mode(0600);
    device.set_uid(uid);
  }
  EXPECT_EQ(Ask("head -c 4 /dev/gpu/0 | wc -c; stat -c '%a %u %t:%T' /dev/gpu/0 /dev/other\n"
                "head -c 1 /dev/other 2>/dev/null || echo refused; touch /dev/x 2>/dev/null || "
                "echo read-only"),
            "4\n600 64321 1:5\n600 0 1:5\nrefused\nread-only\n");
}

// The host's side of a mount that takes part in propagation; gone with the test.
class PropagationTest : public RootTest {
 protected:
  void SetUp() override {
    RootTest::SetUp();
    fs::create_directory(Volume());
    ASSERT_EQ(::mount("volume", Volume().c_str(), "tmpfs", 0, "size=64k"), 0);
    ASSERT_EQ(::mount(nullptr, Volume().c_str(), nullptr, MS_SHARED, nullptr), 0);
    fs::create_directory(Volume() + "/sub");
    ASSERT_EQ(::mkfifo((sandbox_.directory() + "/local/go").c_str(), 0666), 0);
    ASSERT_EQ(::chmod((sandbox_.directory() + "/local/go").c_str(), 0666), 0);
  }
  void TearDown() override { ::umount2(Volume().c_str(), MNT_DETACH); }

  std::string Volume() const { return sandbox_.directory() + "/volume"; }

  // What a task sees of a file system that the host mounts below the volume while it runs.
  std::string SeenOfALaterMount(pb::MountSpec::Propagation propagation) {
    sandbox_.spec().clear_mounts();
    pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/volume");
    mount.set_source(Volume());
    mount.set_propagation(propagation);
    // No thread: the sandbox is forked from here, and would inherit the locks that it holds.
    const pid_t host = ::fork();
    if (host == 0) {
      // Opens when the task reads: it stands then.
      const Fd go(::open((sandbox_.directory() + "/local/go").c_str(), O_WRONLY | O_CLOEXEC));
      ::mount("later", (Volume() + "/sub").c_str(), "tmpfs", 0, "size=64k");
      std::ofstream(Volume() + "/sub/file") << "later";
      ::_exit(0);
    }
    const std::string seen = Ask("read line < /local/go; cat /volume/sub/file 2>/dev/null; true");
    const Fd release(::open((sandbox_.directory() + "/local/go").c_str(),
                            O_RDONLY | O_NONBLOCK | O_CLOEXEC));  // of a sandbox that never stood
    ::waitpid(host, nullptr, 0);
    ::umount2((Volume() + "/sub").c_str(), MNT_DETACH);
    return seen;
  }
};

TEST_F(PropagationTest, OnlyAnAskedForOneSeesLaterMounts) {
  EXPECT_EQ(SeenOfALaterMount(pb::MountSpec::PRIVATE), "");
  EXPECT_EQ(SeenOfALaterMount(pb::MountSpec::SLAVE), "later");
  EXPECT_EQ(SeenOfALaterMount(pb::MountSpec::SHARED), "later");
}

// Row 45 of tests/README.md, from inside.
TEST_F(PropagationTest, AMountOfTheTaskReachesTheHostOnlyByASharedOne) {
  sandbox_.user().set_uid(0);
  sandbox_.spec().add_capabilities(CAP_SYS_ADMIN);
  sandbox_.spec().set_payload_filter(PayloadFilter({CAP_SYS_ADMIN}));
  sandbox_.spec().set_init_filter(InitFilter({CAP_SYS_ADMIN}));
  const auto host_sees = [this](pb::MountSpec::Propagation propagation) {
    sandbox_.spec().clear_mounts();
    pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/volume");
    mount.set_source(Volume());
    mount.set_propagation(propagation);
    EXPECT_EQ(Ask("mount -n -t tmpfs own /volume/sub && touch /volume/sub/own && ls /volume/sub"),
              "own\n");
    return fs::exists(Volume() + "/sub/own");
  };
  EXPECT_FALSE(host_sees(pb::MountSpec::PRIVATE));
  EXPECT_FALSE(host_sees(pb::MountSpec::SLAVE));
  EXPECT_TRUE(host_sees(pb::MountSpec::SHARED));  // the mount is one that can be seen
  ::umount2((Volume() + "/sub").c_str(), MNT_DETACH);
}

TEST_F(PropagationTest, TheFlagsSayWhoGivesAndWhoTakes) {
  const std::pair<pb::MountSpec::Propagation, const char*> expected[] = {
      {pb::MountSpec::PRIVATE, ""},
      {pb::MountSpec::SLAVE, "master"},
      {pb::MountSpec::SHARED, "shared"}};
  for (const auto& [propagation, flag] : expected) {
    sandbox_.spec().clear_mounts();
    pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/volume");
    mount.set_source(Volume());
    mount.set_propagation(propagation);
    EXPECT_EQ(Ask("grep ' /volume ' /proc/self/mountinfo | grep -oE 'master|shared' | tr -d '\n'"),
              flag);
  }
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

// The task's user is nobody on the host, and its files are its own all the same.
class UserNamespaceTest : public RootTest {
 protected:
  static constexpr uint32_t kFirstHostId = 0x6FFE0000;
  static constexpr uint32_t kOwner = 0x6FFF8001;

  void SetUp() override {
    RootTest::SetUp();
    pb::IdRange& range = *sandbox_.user().add_id_map();
    range.set_outside(kFirstHostId);
    range.set_count(65536);
    sandbox_.user().set_namespace_owner(kOwner);
    sandbox_.spec().set_init_filter(InitFilter({}, /*user_namespace=*/true));
  }
  uid_t OwnerOnDisk(const std::string& name) {
    struct stat found = {};
    EXPECT_EQ(::stat((sandbox_.directory() + "/" + name).c_str(), &found), 0) << name;
    return found.st_uid;
  }
};

TEST_F(UserNamespaceTest, FilesKeepTheirOwners) {
  EXPECT_EQ(Ask("id -u; id -g; tr -s ' ' < /proc/self/uid_map; stat -Lc '%u %g' /local /tmp /usr "
                "/etc/passwd; touch /local/made /alloc/made /tmp/made; stat -c '%u %g' /local/made "
                "/tmp/made"),
            "64321\n64322\n 0 1878917120 65536\n64321 64322\n0 0\n0 0\n0 0\n64321 64322\n"
            "64321 64322\n");
  EXPECT_EQ(OwnerOnDisk("local/made"), 64321u);
  EXPECT_EQ(OwnerOnDisk("alloc/made"), 64321u);
}

TEST_F(UserNamespaceTest, ThePayloadStillHasNothing) {
  EXPECT_THAT(
      Ask("tr '\\t' ' ' < /proc/self/status | tr -s ' '"),
      AllOf(HasSubstr("CapPrm: 0000000000000000\n"), HasSubstr("CapBnd: 0000000000000000\n"),
            HasSubstr("CapInh: 0000000000000000\n"), HasSubstr("NoNewPrivs: 1\n")));
  EXPECT_EQ(Ask("readlink /proc/self/ns/mnt > /dev/null; cat /proc/1/environ 2>/dev/null || echo "
                "hidden"),
            "hidden\n");
  for (const std::vector<std::string>& call :
       {std::vector<std::string>{"syscall", absl::StrCat(SYS_setns), "0",
                                 absl::StrCat(CLONE_NEWUSER)},
        std::vector<std::string>{"syscall", absl::StrCat(SYS_unshare),
                                 absl::StrCat(CLONE_NEWUSER)}}) {
    EXPECT_EQ(sandbox_.Probe(call).output, "errno=1\n");
  }
}

TEST_F(UserNamespaceTest, ItsRootIsNobodysRoot) {
  sandbox_.user().set_uid(0);
  sandbox_.user().set_gid(0);
  sandbox_.rootfs().uid = 0;
  sandbox_.rootfs().gid = 0;
  sandbox_.spec().add_capabilities(CAP_CHOWN);
  sandbox_.spec().add_capabilities(CAP_DAC_OVERRIDE);
  EXPECT_EQ(Ask("id -u; touch /local/made; chown 7 /local/made; stat -c %u /local/made"), "0\n7\n");
  EXPECT_EQ(OwnerOnDisk("local/made"), 7u);
  EXPECT_THAT(Refused("echo 1 > /proc/sys/vm/overcommit_memory"), HasSubstr("Read-only"));
  // pid 1's own: all capabilities of the namespace do not reach it.
  EXPECT_EQ(Ask("stat -c '%a %u %g' /run/jenkins-agent"), "2750 65534 0\n");
  Refused("touch /run/jenkins-agent/args");
}

// The kernel charges the owner of a namespace, too (kernel/ucount.c, inc_ucount).
TEST_F(UserNamespaceTest, WhoUsesUpTheOwnersQuotasLeavesTheHostsRootItsOwn) {
  ASSERT_OK_AND_ASSIGN(const Fd user_namespace, MakeUserNamespace(sandbox_.user()));
  uid_t owner = 0;
  ASSERT_EQ(::ioctl(user_namespace.get(), NS_GET_OWNER_UID, &owner), 0);
  EXPECT_EQ(owner, kOwner);
  ASSERT_OK_AND_ASSIGN(const Pipe full, MakePipe());
  ASSERT_OK_AND_ASSIGN(Pipe end, MakePipe());
  const pid_t hog = ::fork();
  if (hog == 0) {
    end.write.Reset();
    if (!EnterUserNamespace(sandbox_.user(), user_namespace.get()).ok()) ::_exit(1);
    int instances = 0;
    while (::inotify_init1(IN_CLOEXEC) >= 0) ++instances;
    if (errno != EMFILE || ::write(full.write.get(), &instances, sizeof(instances)) < 0) ::_exit(1);
    char byte;
    (void)!::read(end.read.get(), &byte, 1);
    ::_exit(0);
  }
  int instances = 0;
  ASSERT_EQ(::read(full.read.get(), &instances, sizeof(instances)), sizeof(instances));
  EXPECT_GT(instances, 0);
  const Fd own(::inotify_init1(IN_CLOEXEC));
  EXPECT_TRUE(own.valid()) << "beside " << instances << " instances of the task's";
  end.write.Reset();
  int wait_status = -1;
  ::waitpid(hog, &wait_status, 0);
  EXPECT_EQ(wait_status, 0);
}

TEST_F(UserNamespaceTest, AFileSystemThatCannotIsNamed) {
  pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/kernel");
  mount.set_source("/sys/kernel");
  const SandboxResult result = sandbox_.Shell("true");
  EXPECT_EQ(result.exit_code, kSetupFailed);
  EXPECT_EQ(result.output,
            "sandbox: mount /kernel: /sys/kernel: its file system has no id-mapped mounts on "
            "this kernel, which userns needs\n");
  mount.set_read_only(true);
  Ask("ls /kernel/mm");
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

// What a job may choose as a target, a task of its group may have prepared: the directory in which
// pid 1 leaves the agent's secret, and the kernel's.
TEST_F(HostileTargetTest, AJobsMountFollowsNoLink) {
  for (const char* text : {"/run/jenkins-agent", "/proc", "/tmp", "../tmp"}) {
    fs::remove(Host("local/trap"));
    Trap(text);
    for (const auto kind : {pb::MountSpec::BIND, pb::MountSpec::TMPFS}) {
      for (const char* target : {"/local/trap", "/local/trap/x"}) {
        sandbox_.spec().clear_mounts();
        pb::MountSpec& mount = AddMount(kind, target);
        if (kind == pb::MountSpec::BIND) mount.set_source(Host("source"));
        mount.set_no_links(true);
        const SandboxResult result = sandbox_.Shell("true");
        EXPECT_EQ(result.exit_code, kSetupFailed) << text;
        EXPECT_THAT(result.output, HasSubstr("a symbolic link on the way, which is not followed"));
      }
    }
  }
  ExpectVictimUntouched();
}

TEST_F(HostileTargetTest, AJobsSourceStaysBelowItsBase) {
  std::ofstream(Host("victim/token")) << "secret";
  pb::MountSpec& mount = AddMount(pb::MountSpec::BIND, "/seen");
  mount.set_base(sandbox_.directory());
  for (const std::string& text : {Host("victim"), std::string("../victim")}) {
    fs::remove(Host("local/trap"));
    Trap(text);
    for (const char* source : {"local/trap", "local/trap/token"}) {
      mount.set_source(Host(source));
      const SandboxResult result = sandbox_.Shell("cat /seen/token /seen");
      EXPECT_EQ(result.exit_code, kSetupFailed) << result.output;
      EXPECT_THAT(result.output, HasSubstr("a symbolic link on the way"));
    }
  }
  fs::create_directory(Host("local/real"));
  fs::permissions(Host("local/real"), fs::perms::all);
  mount.set_source(Host("local/real"));
  Ask("echo x > /seen/made");
  EXPECT_TRUE(fs::exists(Host("local/real/made")));
}

TEST_F(HostileTargetTest, TargetsWithDotDotAreRefused) {
  AddMount(pb::MountSpec::TMPFS, "/local/../etc/x");
  const SandboxResult result = sandbox_.Shell("true");
  EXPECT_EQ(result.exit_code, kSetupFailed);
  EXPECT_THAT(result.output, HasSubstr("not a plain path"));
}

// How often the tests with a Swapper do what they do in a short run.
int Rounds() {
  const char* rounds = ::getenv("SWAP_ROUNDS");
  return rounds == nullptr ? 1 : ::atoi(rounds);
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
  const int starts_each = 10 * Rounds();
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
      for (int i = 0; i < starts_each; ++i) {
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
  for (int i = 0; i < 25 * Rounds(); ++i) {
    const SandboxResult result = sandbox_.Run({"/bin/ls", "/alloc/logs"});
    ASSERT_EQ(result.output.find("secret"), std::string::npos);
    refused += result.exit_code == kSetupFailed;
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace jenkins_agent
