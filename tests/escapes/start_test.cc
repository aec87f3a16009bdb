// Attacks on the start itself: paths that the job chose, and directories that a task before this
// one, or one beside it, prepared. The numbers are rows of tests/README.md, "Escape attempts".
#include <poll.h>

#include <filesystem>
#include <string>
#include <vector>

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

}  // namespace
}  // namespace jenkins_agent
