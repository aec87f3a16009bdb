// Attacks on the start itself: paths that the job chose, and directories that a task before this
// one, or one beside it, prepared. The numbers are rows of tests/README.md, "Escape attempts".
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

// Descriptors of a supervisor with sanitizers, its pid 1 and a launch child end well below.
constexpr int kDescriptors = 32;

class StartAttack : public SupervisorTest {
 protected:
  void SetUp() override {
    SupervisorTest::SetUp();
    // Who gets out finds the way to what a test watches.
    fs::permissions(directory(), fs::perms(0755));
  }
  std::string Run(const pb::LaunchSpec& spec) {
    const absl::StatusOr<pb::TaskStatus> status = Start(spec);
    if (!status.ok()) return std::string(status.status().message());
    EXPECT_TRUE(watcher().WaitExit());
    DropConnection();
    return Stdout() + Stderr();
  }
  // What `argv` says in a program beside the payload.
  std::string RunBeside(const std::vector<std::string>& argv) {
    const absl::StatusOr<Fd> connection = ConnectToSupervisor(TaskDir());
    EXPECT_OK(connection);
    pb::ControlRequest request;
    request.set_sequence(1);
    for (const std::string& argument : argv) request.mutable_exec()->add_argv(argument);
    EXPECT_OK(SendPacket(connection->get(), request.SerializeAsString()));
    pollfd answer = {connection->get(), POLLIN, 0};
    EXPECT_EQ(::poll(&answer, 1, kTestDeadline.count() * 1000), 1);
    const absl::StatusOr<Packet> packet = ReceivePacket(connection->get());
    pb::ControlReply reply;
    if (!packet.ok() || !reply.ParseFromString(packet->data)) return "no answer";
    if (packet->fds.size() != 3) return reply.error();
    return ReadAll(packet->fds[1].get(), 1 << 20).value_or("unreadable");
  }
};

// ---- 35: CVE-2024-21626: the launch child holds directories of the host until its exec ----

TEST_F(StartAttack, ADescriptorIsNoWorkDirectory) {
  for (int fd = 3; fd < kDescriptors; ++fd) {
    pb::LaunchSpec spec = Shell("echo started in $(pwd)");
    spec.mutable_program()->set_work_dir(absl::StrCat("/proc/self/fd/", fd));
    EXPECT_THAT(Run(spec), HasSubstr(absl::StrCat("work_dir /proc/self/fd/", fd))) << fd;
  }
}

TEST_F(StartAttack, NoDirectoryIsMadeThroughADescriptor) {
  for (int fd = 3; fd < kDescriptors; ++fd) {
    pb::LaunchSpec spec = Shell("echo started");
    // Where the task's user may make one, should the descriptor lead to the host.
    spec.mutable_program()->add_make_dirs(
        absl::StrCat("/proc/self/fd/", fd, "/../../../../../..", directory(), "/local/made"));
    EXPECT_THAT(Run(spec), Not(HasSubstr("started"))) << fd;
    EXPECT_FALSE(PathExists(Local("made"))) << fd;
  }
}

TEST_F(StartAttack, NoProgramIsFoundThroughADescriptor) {
  ASSERT_OK(WriteFileAtomic(directory() + "/victim", "#!/bin/sh\necho started\n", 0755));
  std::string path = "PATH=";
  for (int fd = 3; fd < kDescriptors; ++fd) {
    absl::StrAppend(&path, "/proc/self/fd/", fd, "/../../../../../..", directory(), ":");
  }
  pb::LaunchSpec spec = Spec({"victim"});
  spec.mutable_program()->add_env(path);
  EXPECT_EQ(Run(spec), "exec victim: No such file or directory");
}

// A task can do that to its own later processes, or to the operator's `alloc exec`.
TEST_F(StartAttack, ALinkInTheTaskLeadsNoLaterProcessOut) {
  pb::LaunchSpec spec = Shell("echo ready; until [ -e /tmp/end ]; do sleep 0.05; done");
  spec.mutable_program()->add_make_dirs("/local/agent");
  spec.mutable_program()->set_work_dir("/local/agent");
  ASSERT_OK(Start(spec));
  ASSERT_TRUE(Eventually([this] { return Stdout() == "ready\n"; }));
  for (int fd = 3; fd < kDescriptors; ++fd) {
    fs::remove_all(Local("agent"));
    fs::create_symlink(absl::StrCat("/proc/self/fd/", fd), Local("agent"));
    EXPECT_THAT(RunBeside({"echo", "started"}), HasSubstr("work_dir /local/agent: ")) << fd;
  }
  fs::remove_all(Local("agent"));
  fs::create_directory(Local("agent"));
  EXPECT_EQ(RunBeside({"/bin/pwd", "-P"}), "/local/agent\n");
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  EXPECT_TRUE(watcher().WaitExit());
}

// ---- 33: a program that names its starter as its interpreter (CVE-2019-5736) ----

TEST_F(StartAttack, TheStartersProgramIsRunAtMostNeverChanged) {
  ASSERT_OK_AND_ASSIGN(const std::string before, ReadFile(JA_SUPERVISOR_PROGRAM, 64 << 20));
  ASSERT_OK(WriteFileAtomic(Local("script"), "#!/proc/self/exe\n", 0755));
  ASSERT_OK(Start(Spec({"/local/script"})));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_NE(exit->exit_code(), 0);
  EXPECT_EQ(exit->message(), "");
  EXPECT_TRUE(ReadFile(JA_SUPERVISOR_PROGRAM, 64 << 20).value_or("") == before);
}

// ---- 43: links of a former task where this start mounts ----

// Everything that a start could have changed, by path.
std::map<std::string, std::string> TreeState(const std::string& top) {
  std::map<std::string, std::string> state;
  const auto look = [&state](const std::string& path) {
    struct stat found = {};
    if (::lstat(path.c_str(), &found) != 0) return;
    state[path] =
        absl::StrCat(found.st_mode, " ", found.st_uid, " ", found.st_gid, " ", found.st_size, " ",
                     found.st_mtim.tv_sec, ".", found.st_mtim.tv_nsec);
  };
  look(top);
  for (const auto& entry : fs::recursive_directory_iterator(top)) look(entry.path());
  return state;
}

class HostileTree : public StartAttack {
 protected:
  void SetUp() override {
    StartAttack::SetUp();
    for (const char* name : {"victim/inner", "source"}) fs::create_directories(Host(name));
    ASSERT_OK(WriteFileAtomic(Host("victim/file"), "precious", 0600));
  }
  std::string Host(const std::string& name) const { return directory() + "/" + name; }
  void Trap(const std::string& text) {
    fs::remove_all(Local("trap"));
    fs::create_symlink(text, Local("trap"));
  }
  pb::LaunchSpec WithMount(pb::MountSpec::Kind kind, const std::string& target) {
    pb::LaunchSpec spec = Shell("true");
    pb::MountSpec& mount = *spec.mutable_sandbox()->add_mounts();
    mount.set_kind(kind);
    mount.set_target(target);
    mount.set_uid(12345);
    mount.set_mode(0777);
    mount.set_content("x");
    if (kind == pb::MountSpec::BIND) mount.set_source(Host("source"));
    if (kind == pb::MountSpec::SYMLINK) mount.set_source("x");
    return spec;
  }
  void ExpectHostAsBefore(const pb::LaunchSpec& spec, const std::string& what) {
    const auto victim = TreeState(Host("victim"));
    const auto source = TreeState(Host("source"));
    Run(spec);
    EXPECT_EQ(TreeState(Host("victim")), victim) << what;
    EXPECT_EQ(TreeState(Host("source")), source) << what;
  }
};

TEST_F(HostileTree, NoLinkLeadsAMountToTheHost) {
  const auto etc = TreeState("/etc");
  const std::string up = "../../../../../../../..";
  for (const std::string& text :
       {Host("victim"), up + Host("victim"), Host("victim/file"), Host("victim/missing"),
        std::string("trap"), std::string("/etc"), std::string("/proc/self/fd/3"),
        std::string("/proc/1/root") + Host("victim"), std::string("/proc/self/cwd")}) {
    for (const char* target : {"/local/trap", "/local/trap/x"}) {
      for (const auto kind : {pb::MountSpec::BIND, pb::MountSpec::TMPFS, pb::MountSpec::DIRECTORY,
                              pb::MountSpec::FILE, pb::MountSpec::SYMLINK}) {
        Trap(text);
        ExpectHostAsBefore(WithMount(kind, target), absl::StrCat(text, " ", target, " ", kind));
      }
    }
  }
  EXPECT_EQ(TreeState("/etc"), etc);
}

// The allocation's directories are the jobs' to write: what is bound from there is no link.
TEST_F(HostileTree, ALinkInPlaceOfADirectoryOfTheAllocationIsNotShown) {
  fs::remove_all(Host("local"));
  fs::create_directory_symlink(Host("victim"), Host("local"));
  EXPECT_THAT(Start(Shell("cat file")), StatusIs(testing::_, HasSubstr("sandbox: mount /local: ")));
}

// ---- pid 1 and the launches write to /proc as root ----

TEST_F(HostileTree, NothingIsMountedOverProc) {
  fs::create_directories(Host("source/self"));
  ASSERT_OK(WriteFileAtomic(Local("victim"), "precious", 0600));  // root's, in a writable volume
  fs::create_symlink("/local/victim", Host("source/self/oom_score_adj"));
  Trap("/proc");
  for (const char* target : {"/proc", "/proc/1", "/proc/sys/kernel", "/local/trap"}) {
    for (const auto kind : {pb::MountSpec::BIND, pb::MountSpec::TMPFS}) {
      EXPECT_THAT(
          Start(WithMount(kind, target)),
          StatusIs(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("sandbox: mount ", target, ": nothing can be mounted in /proc")));
    }
  }
  EXPECT_EQ(LocalContent("victim"), "precious");
}

// ---- 45: a volume whose mounts the host shares ----

TEST_F(HostileTree, MountsOnTheHostDoNotAppearInAVolume) {
  const std::string volume = Host("source");
  ASSERT_EQ(::mount("none", volume.c_str(), "tmpfs", 0, nullptr), 0);
  const absl::Cleanup unmount = [&] { ::umount2(volume.c_str(), MNT_DETACH); };
  ASSERT_EQ(::mount(nullptr, volume.c_str(), nullptr, MS_SHARED, nullptr), 0);
  fs::create_directory(volume + "/late");
  pb::LaunchSpec spec =
      Shell("echo ready; until [ -e go ]; do sleep 0.05; done; ls -A /mnt/late; echo end");
  pb::MountSpec& mount = *spec.mutable_sandbox()->add_mounts();
  mount.set_source(volume);
  mount.set_target("/mnt");
  ASSERT_OK(Start(spec));
  ASSERT_TRUE(Eventually([this] { return Stdout() == "ready\n"; }));
  ASSERT_EQ(::mount("none", (volume + "/late").c_str(), "tmpfs", 0, nullptr), 0);
  const absl::Cleanup unmount_late = [&] { ::umount2((volume + "/late").c_str(), MNT_DETACH); };
  ASSERT_OK(WriteFileAtomic(volume + "/late/seen", ""));
  ASSERT_OK(WriteFileAtomic(Local("go"), ""));
  ASSERT_TRUE(watcher().WaitExit());
  EXPECT_EQ(Stdout(), "ready\nend\n");
}

// ---- 46 ----

TEST_F(HostileTree, OddTargetsAreRefusedBeforeAnythingIsMade) {
  for (const std::string& target :
       {std::string("/local/../victim/x"), std::string("local/x"), std::string("/local//x"),
        std::string("/local/./x"), std::string("/local/x/"), std::string("/"), std::string(),
        std::string("/local/a\0b", 10), "/local/" + std::string(4096, 'n')}) {
    const auto before = TreeState(directory() + "/local");
    EXPECT_FALSE(Start(WithMount(pb::MountSpec::DIRECTORY, target)).ok()) << target;
    EXPECT_EQ(TreeState(directory() + "/local"), before) << target;
  }
}

}  // namespace
}  // namespace jenkins_agent
