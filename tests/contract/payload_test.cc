// What a program gets from the plugin and from Nomad, and what it must not get
// (nomad-driver-protocol.md 6, 7.9, 9).
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "tests/contract/task_test.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kUntilToldToGo[] = "touch /local/ready; until [ -e /local/go ]; do sleep 0.05; done";

class Payload : public TaskTest {
 protected:
  void AwaitReady() {
    ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(host_.Local("ready")); }));
  }
};

TEST_F(Payload, HasNothingOfThePluginsEnvironment) {
  ASSERT_OK(host_.Quit());
  ASSERT_OK(host_.Launch({.env = {{"OF_THE_PLUGIN", "x"}}}));
  nomad::TaskConfig config = host_.Config(kId, "env > /local/env");
  (*config.mutable_env())["OF_THE_JOB"] = "y";
  Start(config);
  EXPECT_EQ(Wait().result().exit_code(), 0);
  ASSERT_OK_AND_ASSIGN(const std::string env, ReadFile(host_.Local("env")));
  EXPECT_THAT(env, HasSubstr("OF_THE_JOB=y\n"));
  EXPECT_THAT(env, Not(HasSubstr("OF_THE_PLUGIN")));
  EXPECT_THAT(env, Not(HasSubstr("NOMAD_PLUGIN_MAGIC_COOKIE")));
}

// An operator may change what the kernel's OOM killer thinks of the agent; its plugins inherit
// that.
TEST_F(Payload, DoesNotInheritTheAgentsOomScore) {
  constexpr char kScore[] = "/proc/self/oom_score_adj";
  ASSERT_OK(host_.Quit());
  ASSERT_OK_AND_ASSIGN(const std::string before, ReadFile(kScore));
  ASSERT_OK_AND_ASSIGN(const Fd score, OpenFile(kScore, O_WRONLY));
  ASSERT_OK(WriteAll(score.get(), "300"));  // less needs CAP_SYS_RESOURCE
  const absl::Status launched = host_.Launch();
  EXPECT_OK(WriteAll(score.get(), before));
  ASSERT_OK(launched);
  EXPECT_EQ(ReadFile(absl::StrCat("/proc/", host_.plugin().pid(), "/oom_score_adj")).value_or(""),
            "300\n");
  Start("cat /proc/self/oom_score_adj > /local/score");
  EXPECT_EQ(Wait().result().exit_code(), 0);
  EXPECT_EQ(ReadFile(host_.Local("score")).value_or(""), "0\n");
}

// Nomad's reader of the FIFO takes an end of file for the task's end.
TEST_F(Payload, ItsFifoIsHeldUntilItsExitWhateverItCloses) {
  const std::string path = host_.dir() + "/fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  ASSERT_OK_AND_ASSIGN(const Fd reader, OpenFile(path, O_RDONLY | O_NONBLOCK));
  nomad::TaskConfig config =
      host_.Config(kId, absl::StrCat("echo out; exec >&- 2>&-; ", kUntilToldToGo));
  config.set_stdout_path(path);
  Start(config);
  char buffer[64];
  const auto read = [&] { return ::read(reader.get(), buffer, sizeof(buffer)); };
  ASSERT_TRUE(WaitFor([&] { return read() == 4; }));  // "out\n"
  AwaitReady();
  EXPECT_EQ(read(), -1);
  EXPECT_EQ(errno, EAGAIN);
  ASSERT_OK(WriteFileAtomic(host_.Local("go"), "", 0644));
  EXPECT_EQ(Wait().result().exit_code(), 0);
  EXPECT_TRUE(WaitFor([&] { return read() == 0; }));
}

// Nomad mounts it before the start and takes it away after DestroyTask; a copy of the mount in
// another task's namespace would keep the secrets in memory.
TEST_F(Payload, TheSecretsFileSystemIsPinnedByNobodyAfterDestroy) {
  const std::string secrets = host_.dir() + "/allocs/agent/secrets";
  ASSERT_EQ(::mount("secrets", secrets.c_str(), "tmpfs", 0, "size=1m,mode=0755"), 0);
  struct stat info;
  ASSERT_EQ(::stat(secrets.c_str(), &info), 0);
  const std::string device = absl::StrCat(" ", major(info.st_dev), ":", minor(info.st_dev), " ");
  ASSERT_OK(WriteFileAtomic(secrets + "/token", "s3cret", 0644));
  Start(absl::StrCat("cat /secrets/token > /local/seen; ", kUntilToldToGo));
  AwaitReady();
  EXPECT_EQ(ReadFile(host_.Local("seen")).value_or(""), "s3cret");
  ASSERT_OK(host_.MakeTaskDirs("other"));
  nomad::TaskConfig other = host_.Config(kOther, "exec sleep 600");
  other.set_name("other");
  Start(other);

  EXPECT_THAT(host_.Destroy(kId), Succeeded());
  EXPECT_EQ(::umount2(secrets.c_str(), 0), 0);
  std::vector<std::string> pinned;
  for (const auto& process : std::filesystem::directory_iterator("/proc")) {
    const auto mounts = ReadFile(process.path().native() + "/mountinfo", 4 << 20);
    if (mounts.ok() && absl::StrContains(*mounts, device)) pinned.push_back(process.path());
  }
  EXPECT_THAT(pinned, IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent
