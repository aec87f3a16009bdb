// What the image worker's child can still reach: asked from inside, in a process of its own.
#include "driver/tools/confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StrEq;

class ConfineTest : public testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    store_ = dir_.path() + "/store";
    ASSERT_OK(MakeDirs(store_, 0700));
    ASSERT_OK(WriteFileAtomic(dir_.path() + "/readable", "readable"));
    ASSERT_OK(WriteFileAtomic(dir_.path() + "/secret", "secret"));
  }

  // What `inside` says when it runs confined.
  std::string Run(const std::function<std::string()>& inside, bool network = true) {
    Pipe answer = *MakePipe();
    const pid_t outer = ::fork();
    if (outer == 0) {
      ::unshare(CLONE_NEWPID);
      const pid_t child = ::fork();
      if (child == 0) Confined(inside, network, answer.write.get());
      ::waitpid(child, nullptr, 0);
      ::_exit(0);
    }
    answer.write.Reset();
    const absl::StatusOr<std::string> text = ReadAll(answer.read.get(), 1 << 16);
    ::waitpid(outer, nullptr, 0);
    return text.ok() ? *text : std::string(text.status().message());
  }

  const TempDir dir_;
  std::string store_;

 private:
  [[noreturn]] void Confined(const std::function<std::string()>& inside, bool network, int answer) {
    const absl::Status confined = Confine({.writable = store_,
                                           .readable = {dir_.path() + "/readable", "/not/there"},
                                           .network = network,
                                           .max_file_bytes = 1 << 20});
    WriteAll(answer, confined.ok() ? inside() : std::string(confined.message())).IgnoreError();
    ::_exit(0);
  }
};

// The error of a call that returned `result`; "ok" when it worked.
std::string Outcome(long result) { return result < 0 ? ::strerrorname_np(errno) : "ok"; }

std::string Open(const std::string& path, int flags) {
  return Outcome(::open(path.c_str(), flags | O_CLOEXEC, 0600));
}

TEST_F(ConfineTest, SeesTheStoreAndWhatItMayRead) {
  EXPECT_THAT(Run([this] {
                std::vector<std::string> seen;
                for (const auto& entry : std::filesystem::recursive_directory_iterator(
                         std::filesystem::path(dir_.path()).parent_path())) {
                  seen.push_back(entry.path());
                }
                std::sort(seen.begin(), seen.end());
                return absl::StrJoin(seen, " ");
              }),
              StrEq(absl::StrCat(dir_.path(), " ", dir_.path(), "/readable ", store_)));
  EXPECT_EQ(Run([this] { return Open(dir_.path() + "/readable", O_RDONLY); }), "ok");
  EXPECT_EQ(Run([this] { return Open(dir_.path() + "/readable", O_WRONLY); }), "EROFS");
  EXPECT_EQ(Run([this] { return Open(store_ + "/made", O_WRONLY | O_CREAT); }), "ok");
  EXPECT_EQ(Run([] { return Open("/made", O_WRONLY | O_CREAT); }), "EROFS");
  EXPECT_TRUE(std::filesystem::exists(store_ + "/made"));
}

TEST_F(ConfineTest, ReachesNothingElseOfTheHost) {
  for (const std::string& path :
       {std::string("/etc/shadow"), dir_.path() + "/secret", std::string("/bin/sh"),
        std::string("/root"), std::string("/dev/null"), std::string("/sys"), std::string("/run"),
        std::string("/proc/sys/kernel/core_pattern"), std::string("/proc/kcore"),
        std::string("/proc/sysrq-trigger"), std::string("/proc/1/root/etc/shadow"),
        store_ + "/../secret", std::string("/proc/self/cwd/../../etc/shadow")}) {
    EXPECT_EQ(Run([&path] { return Open(path, O_RDONLY); }), "ENOENT") << path;
  }
  // A descriptor that leads out would do; there is none.
  EXPECT_EQ(Run([] {
              std::string out;
              for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
                struct stat info = {};
                if (::stat(fd.path().c_str(), &info) == 0 && S_ISDIR(info.st_mode) &&
                    std::filesystem::read_symlink(fd.path()).string().find("/proc") != 0) {
                  absl::StrAppend(&out, std::filesystem::read_symlink(fd.path()).string(), " ");
                }
              }
              return out + "none";
            }),
            "none");
}

TEST_F(ConfineTest, SeesAndHurtsNoProcess) {
  const pid_t self = ::getpid();
  EXPECT_EQ(Run([] {
              std::vector<std::string> pids;
              for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
                const std::string name = entry.path().filename();
                if (::isdigit(name[0]) != 0) pids.push_back(name);
              }
              return absl::StrJoin(pids, " ");
            }),
            "1");
  EXPECT_EQ(Run([self] { return Outcome(::kill(self, 0)); }), "EPERM");
  EXPECT_EQ(Run([self] { return Outcome(::syscall(SYS_tgkill, self, self, SIGKILL)); }), "ESRCH");
  EXPECT_EQ(Run([self] { return Outcome(::ptrace(PTRACE_ATTACH, self, 0, 0)); }), "EPERM");
  EXPECT_EQ(Run([self] {
              char byte = 0;
              iovec here = {&byte, 1}, there = {&byte, 1};
              return Outcome(::process_vm_readv(self, &here, 1, &there, 1, 0));
            }),
            "EPERM");
  EXPECT_EQ(Run([self] { return Outcome(::syscall(SYS_pidfd_open, self, 0)); }), "EPERM");
}

TEST_F(ConfineTest, StartsNothing) {
  EXPECT_EQ(Run([] {
              const char* const argv[] = {"sh", nullptr};
              return Outcome(::execve("/proc/self/exe", const_cast<char**>(argv), nullptr));
            }),
            "EPERM");
  EXPECT_EQ(Run([] { return Outcome(::syscall(SYS_fork)); }), "EPERM");
  EXPECT_EQ(Run([] { return Outcome(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }), "EPERM");
  EXPECT_EQ(Run([] { return Outcome(::syscall(SYS_clone3, nullptr, 0)); }), "ENOSYS");
  EXPECT_EQ(Run([] {
              std::string said;
              std::thread([&said] { said = "a thread"; }).join();
              return said;
            }),
            "a thread");
}

TEST_F(ConfineTest, ChangesNoMountsAndNamespaces) {
  EXPECT_EQ(Run([this] { return Outcome(::mount("none", store_.c_str(), "tmpfs", 0, nullptr)); }),
            "EPERM");
  EXPECT_EQ(Run([] { return Outcome(::mount(nullptr, "/", nullptr, MS_REMOUNT, nullptr)); }),
            "EPERM");
  EXPECT_EQ(Run([] { return Outcome(::umount2("/proc", MNT_DETACH)); }), "EPERM");
  EXPECT_EQ(Run([] { return Outcome(::unshare(CLONE_NEWUSER)); }), "EPERM");
  EXPECT_EQ(Run([] { return Outcome(::setns(0, 0)); }), "EPERM");
  EXPECT_EQ(Run([this] { return Outcome(::chroot(store_.c_str())); }), "EPERM");
  for (const long call : {SYS_pivot_root, SYS_fsopen, SYS_fsmount, SYS_fspick, SYS_open_tree,
                          SYS_move_mount, SYS_mount_setattr, SYS_open_by_handle_at}) {
    EXPECT_EQ(Run([call] { return Outcome(::syscall(call, 0, 0, 0, 0, 0)); }), "EPERM") << call;
  }
}

// CAP_SYS_ADMIN is for trusted.*; what else it is for is refused.
TEST_F(ConfineTest, AsksTheKernelForNothingElse) {
  for (const long call :
       {SYS_bpf,           SYS_perf_event_open, SYS_keyctl,         SYS_init_module,
        SYS_kexec_load,    SYS_reboot,          SYS_syslog,         SYS_sethostname,
        SYS_swapon,        SYS_quotactl,        SYS_io_uring_setup, SYS_userfaultfd,
        SYS_fanotify_init, SYS_ioctl,           SYS_setuid,         SYS_capset,
        SYS_memfd_create,  SYS_shmget,          SYS_inotify_init1,  SYS_acct,
        SYS_settimeofday}) {
    EXPECT_THAT(Run([call] { return Outcome(::syscall(call, 0, 0, 0, 0, 0)); }),
                testing::AnyOf("EPERM", "ENOSYS"))
        << call;
  }
}

TEST_F(ConfineTest, MakesOnlyConnectionsOfTheInternet) {
  EXPECT_EQ(Run([] { return Outcome(::socket(AF_INET, SOCK_STREAM, 0)); }), "ok");
  EXPECT_EQ(Run([] { return Outcome(::socket(AF_INET6, SOCK_DGRAM, 0)); }), "ok");
  EXPECT_EQ(Run([] { return Outcome(::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)); }), "EPERM");
  for (const int family : {AF_UNIX, AF_NETLINK, AF_PACKET, AF_ALG, AF_VSOCK}) {
    EXPECT_EQ(Run([family] { return Outcome(::socket(family, SOCK_DGRAM, 0)); }), "EPERM")
        << family;
  }
  EXPECT_EQ(Run([] { return Outcome(::listen(0, 1)); }), "EPERM");
  EXPECT_EQ(Run([] { return Outcome(::socket(AF_INET, SOCK_STREAM, 0)); }, /*network=*/false),
            "EPERM");
}

TEST_F(ConfineTest, KeepsTheCapabilitiesOfTheStoreAndGetsNoOthers) {
  const std::string status = Run([] { return *ReadFile("/proc/self/status"); });
  uint64_t kept = 0;
  for (const int capability : {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_MKNOD,
                               CAP_SETFCAP, CAP_SYS_ADMIN}) {
    kept |= uint64_t{1} << capability;
  }
  for (const char* set : {"CapPrm", "CapEff"}) {
    EXPECT_THAT(status, HasSubstr(absl::StrFormat("%s:\t%016x\n", set, kept)));
  }
  for (const char* set : {"CapInh", "CapBnd", "CapAmb"}) {
    EXPECT_THAT(status, HasSubstr(absl::StrFormat("%s:\t%016x\n", set, 0)));
  }
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1\n"));
  EXPECT_THAT(status, HasSubstr("Seccomp:\t2\n"));
  EXPECT_THAT(status, HasSubstr("Groups:\t \n"));
}

TEST_F(ConfineTest, MakesDevicesThatItCannotOpen) {
  const std::string disk = store_ + "/disk";
  EXPECT_EQ(Run([&disk] {
              const std::string made =
                  Outcome(::mknod(disk.c_str(), S_IFBLK | 0600, makedev(254, 0)));
              return made + " " + Open(disk, O_RDONLY);
            }),
            "ok EACCES");
  EXPECT_EQ(Run([this] {
              return Outcome(::setxattr(store_.c_str(), "trusted.overlay.opaque", "y", 1, 0));
            }),
            "ok");
}

TEST_F(ConfineTest, WritesNoFileBeyondItsLimit) {
  EXPECT_EQ(Run([this] {
              ::signal(SIGXFSZ, SIG_IGN);
              const int file =
                  ::open((store_ + "/big").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
              const std::string half(3 << 18, 'x');
              const absl::Status first = WriteAll(file, half);
              return absl::StrCat(first.ok() ? "ok " : "", WriteAll(file, half).message());
            }),
            "ok write: File too large");
}

}  // namespace
}  // namespace jenkins_agent
