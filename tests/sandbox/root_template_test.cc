// What tasks share and what of it they can reach, with real templates and real sandboxes.
#include "driver/sandbox/root_template.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "tests/sandbox/sandbox_run.h"
#include "tests/support/own_mounts.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

const auto* const kOwnMounts = testing::AddGlobalTestEnvironment(new OwnMounts);

namespace fs = std::filesystem;

const std::vector<std::string> kCgroupNames = {"memory", "cpu"};

// In a process of its own, whose namespaces may be left anywhere. -> its exit code.
int InChild(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work());
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// As root with every capability, which no task has.
int InCopyOf(int mount_namespace, const std::function<int()>& work) {
  return InChild([&] {
    if (::setns(mount_namespace, CLONE_NEWNS) != 0 || ::unshare(CLONE_NEWNS) != 0) return 100;
    return work();
  });
}

// Which mount namespace it is.
std::string Identity(const Fd& mount_namespace) {
  return fs::read_symlink("/proc/self/fd/" + std::to_string(mount_namespace.get()));
}

std::string HostMounts() {
  std::ifstream file("/proc/self/mountinfo");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class RootTemplateTest : public testing::Test {
 protected:
  void SetUp() override { REQUIRES_ROOT(); }

  std::string Packed() {
    pb::TemplateSpec spec;
    sandbox_.Spec(&spec);
    return spec.SerializeAsString();
  }
  // A template with one bind of `source` at /view.
  static std::string View(const std::string& source) {
    pb::TemplateSpec spec;
    pb::MountSpec& bind = *spec.add_mounts();
    bind.set_source(source);
    bind.set_target("/view");
    bind.set_read_only(true);
    return spec.SerializeAsString();
  }
  // First line of /view (or of a file below it) in a copy of the template; "" when there is none.
  static std::string Read(int mount_namespace, const std::string& path) {
    auto pipe = MakePipe();
    EXPECT_OK(pipe);
    EXPECT_EQ(InCopyOf(mount_namespace,
                       [&] {
                         std::ifstream file(path);
                         std::string line;
                         std::getline(file, line);
                         return WriteAll(pipe->write.get(), line).ok() ? 0 : 1;
                       }),
              0);
    pipe->write.Reset();
    return ReadAll(pipe->read.get(), 4096).value_or("unreadable");
  }

  TestSandbox sandbox_;
  TempDir host_;
};

TEST_F(RootTemplateTest, NobodyCanWriteToItNotEvenThroughAMountOfItsOwn) {
  ASSERT_OK_AND_ASSIGN(const RootTemplate made, RootTemplate::Build(Packed(), kCgroupNames));
  for (const std::string directory : {"/", "/dev", "/etc", "/sys/fs/cgroup", "/tmp"}) {
    EXPECT_EQ(
        InCopyOf(made.mount_namespace(),
                 [&] {
                   const std::string file = directory + "/x";
                   if (::mkdir(file.c_str(), 0700) == 0) return 1;
                   if (errno != EROFS) return 2;
                   const std::string top =
                       directory == "/etc" || directory == "/tmp" ? "/" : directory;
                   if (::mount(nullptr, top.c_str(), nullptr, MS_REMOUNT | MS_BIND, nullptr) != 0) {
                     return 3;
                   }
                   if (::mkdir(file.c_str(), 0700) == 0) return 4;
                   return errno == EROFS ? 0 : 5;
                 }),
        0)
        << directory;
  }
}

TEST_F(RootTemplateTest, TasksDoNotSeeEachOtherThroughIt) {
  ASSERT_OK_AND_ASSIGN(const RootTemplate made, RootTemplate::Build(Packed(), kCgroupNames));
  sandbox_.Share(&made);
  sandbox_.user().set_uid(0);  // what root cannot do nobody can
  sandbox_.user().set_gid(0);
  const std::string leave =
      "for d in $(find / -xdev -type d; find /dev /etc /run /tmp /sys/fs/cgroup -type d); do\n"
      "  (echo here > $d/trace) 2>/dev/null; done; (echo x >> /etc/passwd) 2>/dev/null\n"
      "for node in /dev/*; do chmod 0 $node; chown 1 $node; touch -d 2001-01-01 $node; rm -f "
      "$node;\n"
      "  done 2>/dev/null; ls /tmp/trace";
  const SandboxResult first = sandbox_.Shell(leave);
  EXPECT_EQ(first.output, "/tmp/trace\n");
  TestSandbox other;
  other.Share(&made);
  const SandboxResult second = other.Shell(
      "find / /dev /etc /run /tmp /sys/fs/cgroup -xdev -name trace 2>/dev/null; tail -n 1 "
      "/etc/passwd\n"
      "stat -c '%n %a %u' /dev/null /dev/tty; find /dev -not -newermt 2010-01-01; ls /local");
  EXPECT_EQ(second.output, "ci:x:64321:64322::/local:/bin/sh\n/dev/null 666 0\n/dev/tty 666 0\n");
}

// The kernel notes a first access even under relatime, if it may write to the file system.
TEST_F(RootTemplateTest, WhatATaskReadsDoesNotShow) {
  ASSERT_OK_AND_ASSIGN(const RootTemplate made, RootTemplate::Build(Packed(), kCgroupNames));
  sandbox_.Share(&made);
  const std::string look =
      "stat -c '%n %x' / /dev /dev/null /dev/urandom /dev/stdin /etc /sys/fs/cgroup";
  const SandboxResult before = sandbox_.Shell(look);
  ASSERT_EQ(before.exit_code, 0) << before.output;
  TestSandbox other;
  other.Share(&made);
  const SandboxResult reads = other.Shell(
      "ls / /dev /etc /sys/fs/cgroup >/dev/null && head -c 1 /dev/urandom >/dev/null &&\n"
      "cat /dev/null && readlink /dev/stdin >/dev/null");
  EXPECT_EQ(reads.exit_code, 0) << reads.output;
  EXPECT_EQ(sandbox_.Shell(look).output, before.output);
}

// On a host whose mounts are all shared, as systemd leaves them.
TEST_F(RootTemplateTest, NoMountOfACopyReachesAnotherOne) {
  EXPECT_EQ(InChild([&] {
              if (!BecomeSharedHost()) return 1;
              const absl::StatusOr<RootTemplate> made = RootTemplate::Build(Packed(), kCgroupNames);
              if (!made.ok()) return 2;
              const int mounted = InCopyOf(made->mount_namespace(), [] {
                if (::mount("none", "/proc", "proc", 0, nullptr) != 0) return 10;
                for (absl::string_view line : absl::StrSplit(HostMounts(), '\n')) {
                  for (const char* tie : {" shared:", " master:", " propagate_from:"}) {
                    if (absl::StrContains(line, tie)) return 11;
                  }
                }
                if (::mount("none", "/tmp", "tmpfs", 0, nullptr) != 0) return 12;
                return ::mkdir("/tmp/trace", 0700) == 0 ? 0 : 13;
              });
              if (mounted != 0) return mounted;
              return InCopyOf(made->mount_namespace(), [] {
                return fs::exists("/tmp/trace") || fs::exists("/proc/self") ? 20 : 0;
              });
            }),
            0);
}

// As root of the host, which a task with CAP_SYS_ADMIN is as far as file systems are concerned.
TEST_F(RootTemplateTest, OneOfSingleUseIsNeverHandedOutAgain) {
  pb::TemplateSpec spec;
  spec.set_single_use(true);
  const std::string packed = spec.SerializeAsString();
  RootTemplates templates({});
  ASSERT_OK_AND_ASSIGN(const Fd first, templates.Get(packed));
  EXPECT_EQ(InCopyOf(first.get(),
                     [] {
                       if (::mount(nullptr, "/", nullptr, MS_REMOUNT, nullptr) != 0) return 1;
                       return ::mkdir("/trace", 0700) == 0 ? 0 : 2;
                     }),
            0);
  EXPECT_EQ(InCopyOf(first.get(), [] { return fs::exists("/trace") ? 0 : 1; }), 0);
  ASSERT_OK_AND_ASSIGN(const Fd second, templates.Get(packed));
  EXPECT_EQ(InCopyOf(second.get(), [] { return fs::exists("/trace") ? 1 : 0; }), 0);
}

TEST_F(RootTemplateTest, TheHostNeverSeesIt) {
  ASSERT_TRUE(BecomeSharedHost());
  const std::string before = HostMounts();
  const std::string home = fs::read_symlink("/proc/self/ns/mnt");
  {
    ASSERT_OK_AND_ASSIGN(const RootTemplate made, RootTemplate::Build(Packed(), kCgroupNames));
    EXPECT_EQ(HostMounts(), before);
    EXPECT_EQ(fs::read_symlink("/proc/self/ns/mnt"), home);
  }
  EXPECT_EQ(HostMounts(), before);
}

TEST_F(RootTemplateTest, AFailedBuildNamesTheStepAndComesBack) {
  const std::string home = fs::read_symlink("/proc/self/ns/mnt");
  EXPECT_THAT(RootTemplate::Build(View(host_.path() + "/missing"), {}),
              StatusIs(absl::StatusCode::kNotFound, testing::HasSubstr("mount /view: open ")));
  pb::TemplateSpec unknown;
  unknown.add_mounts()->set_target("/a/../b");
  EXPECT_FALSE(RootTemplate::Build(unknown.SerializeAsString(), {}).ok());
  EXPECT_EQ(fs::read_symlink("/proc/self/ns/mnt"), home);
  EXPECT_TRUE(fs::exists(host_.path()));
}

TEST_F(RootTemplateTest, IsKeptWhileTheHostIsTheSame) {
  RootTemplates templates({});
  std::ofstream(host_.path() + "/file") << "old";
  ASSERT_OK_AND_ASSIGN(const Fd first, templates.Get(View(host_.path())));
  ASSERT_OK(templates.Get(View("/usr")));
  std::ofstream(host_.path() + "/file") << "new";  // what is bound shows its changes by itself
  ASSERT_OK_AND_ASSIGN(const Fd again, templates.Get(View(host_.path())));
  EXPECT_EQ(Identity(again), Identity(first));
  EXPECT_EQ(Read(again.get(), "/view/file"), "new");
}

TEST_F(RootTemplateTest, IsBuiltAnewWhenASourceWasReplaced) {
  RootTemplates templates({});
  const std::string file = host_.path() + "/ld.so.cache";
  std::ofstream(file) << "old";
  ASSERT_OK_AND_ASSIGN(const Fd first, templates.Get(View(file)));
  EXPECT_EQ(Read(first.get(), "/view"), "old");
  std::ofstream(file + "~") << "new";
  fs::rename(file + "~", file);
  ASSERT_OK_AND_ASSIGN(const Fd second, templates.Get(View(file)));
  EXPECT_EQ(Read(second.get(), "/view"), "new");
}

TEST_F(RootTemplateTest, IsBuiltAnewWhenTheHostMountsSomethingBelowASource) {
  const std::string path = host_.path();
  fs::create_directory(path + "/disk");
  EXPECT_EQ(InChild([&] {
              if (::unshare(CLONE_NEWNS) != 0) return 1;
              if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 2;
              RootTemplates templates({});
              if (!templates.Get(View(path)).ok()) return 3;
              pollfd mounts = {templates.mounts_fd(), POLLPRI, 0};
              if (::poll(&mounts, 1, 0) != 0) return 4;
              if (::mount("none", (path + "/disk").c_str(), "tmpfs", 0, nullptr) != 0) return 5;
              std::ofstream(path + "/disk/tool") << "there";
              if (::poll(&mounts, 1, 0) != 1) return 6;
              templates.OnMountsChanged();
              const absl::StatusOr<Fd> made = templates.Get(View(path));
              if (!made.ok()) return 7;
              return Read(made->get(), "/view/disk/tool") == "there" ? 0 : 8;
            }),
            0);
}

TEST_F(RootTemplateTest, MountsElsewhereDoNotMatter) {
  EXPECT_EQ(InChild([&] {
              if (::unshare(CLONE_NEWNS) != 0) return 1;
              if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 2;
              RootTemplates templates({});
              const absl::StatusOr<Fd> first = templates.Get(View("/usr"));
              if (!first.ok()) return 3;
              if (::mount("none", host_.path().c_str(), "tmpfs", 0, nullptr) != 0) return 4;
              templates.OnMountsChanged();
              const absl::StatusOr<Fd> again = templates.Get(View("/usr"));
              return again.ok() && Identity(*again) == Identity(*first) ? 0 : 5;
            }),
            0);
}

TEST_F(RootTemplateTest, OnlyAFewAreKept) {
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  RootTemplates templates({});
  const auto before = descriptors();
  for (size_t i = 0; i < RootTemplates::kMaxKept + 2; ++i) {
    const std::string source = host_.path() + "/" + std::to_string(i);
    fs::create_directory(source);
    ASSERT_OK(templates.Get(View(source)));
  }
  EXPECT_EQ(descriptors(), before + static_cast<ptrdiff_t>(RootTemplates::kMaxKept));
}

// As an image's root file system will: it has none of its own that could be trusted.
TEST_F(RootTemplateTest, DevAndSysOfACopyCanBeMovedElsewhere) {
  ASSERT_OK_AND_ASSIGN(const RootTemplate made, RootTemplate::Build(Packed(), kCgroupNames));
  EXPECT_EQ(
      InCopyOf(made.mount_namespace(),
               [] {
                 if (::mount("none", "/local", "tmpfs", 0, nullptr) != 0) return 1;
                 for (const std::string tree : {"/dev", "/sys"}) {
                   if (::mkdir(("/local" + tree).c_str(), 0755) != 0) return 2;
                   if (::mount(tree.c_str(), ("/local" + tree).c_str(), nullptr, MS_MOVE,
                               nullptr) != 0) {
                     return 3;
                   }
                 }
                 if (::access("/local/dev/null", W_OK) != 0) return 4;
                 if (fs::exists("/local/sys/firmware") && !fs::is_empty("/local/sys/firmware")) {
                   return 5;
                 }
                 return ::mkdir("/local/dev/x", 0700) != 0 && errno == EROFS ? 0 : 6;
               }),
      0);
}

TEST_F(RootTemplateTest, ANetworkNamespaceOfItsOwnHasItsOwnSys) {
  auto pipe = MakePipe();
  ASSERT_OK(pipe);
  const pid_t holder = ::fork();
  if (holder == 0) {
    if (::unshare(CLONE_NEWNET) != 0) ::_exit(1);
    (void)!::write(pipe->write.get(), "x", 1);
    ::pause();
    ::_exit(0);
  }
  char made = 0;
  ASSERT_EQ(::read(pipe->read.get(), &made, 1), 1);
  sandbox_.spec().set_network_namespace("/proc/" + std::to_string(holder) + "/ns/net");
  const SandboxResult inside =
      sandbox_.Shell("ls /sys/class/net; ls -A /sys/firmware 2>/dev/null; true");
  EXPECT_EQ(inside.output, "lo\n");
  sandbox_.spec().clear_network_namespace();
  std::string host;
  for (const auto& entry : fs::directory_iterator("/sys/class/net")) {
    host += entry.path().filename().string() + "\n";
  }
  const SandboxResult outside = sandbox_.Shell("ls -f /sys/class/net | grep -vx '[.]*'");
  EXPECT_EQ(outside.output, host);
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
}

TEST(MountsBelow, AreThoseAtThePathsAndBelow) {
  const std::string usr = "22 1 8:1 /usr /usr ro shared:1 - ext4 /dev/sda1 rw";
  const std::string local = "23 22 8:2 / /usr/local rw - ext4 /dev/sdb1 rw";
  const std::string other = "24 1 8:3 / /usr2 rw - ext4 /dev/sdc1 rw";
  const std::string text = usr + "\n" + local + "\n" + other + "\nshort line\n";
  EXPECT_EQ(MountsBelow(text, {"/usr"}), usr + "\n" + local + "\n");
  EXPECT_EQ(MountsBelow(text, {"/usr/local"}), local + "\n");
  EXPECT_EQ(MountsBelow(text, {"/etc/ssl"}), "");
}

}  // namespace
}  // namespace jenkins_agent
