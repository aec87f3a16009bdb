// What a job, or an agent that went wrong, may hand to StartTask. Each refusal is one sentence that
// names its object, and leaves neither files nor cgroups (TaskTest looks at the end).
#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "tests/contract/task_test.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class BadInput : public TaskTest {
 protected:
  // Refused, with nothing left, and the plugin still works.
  void ExpectRefused(const nomad::TaskConfig& config, const std::string& part) {
    SCOPED_TRACE(part);
    EXPECT_THAT(TryStart(config), FailedWith(HasSubstr(part)));
    EXPECT_EQ(host_.Leftovers(), "");
  }
  // Starts it, waits for its end and forgets it. The exit code.
  int RunToEnd(const nomad::TaskConfig& config) {
    EXPECT_THAT(TryStart(config), Succeeded());
    const int exit_code = Wait(config.id()).result().exit_code();
    EXPECT_THAT(host_.Destroy(config.id()), Succeeded());
    return exit_code;
  }
  nomad::TaskConfig True() const { return host_.Config(kId, "/bin/true", {}); }
};

// Reads a FIFO, as Nomad's log helper does of a task's output.
class LogReader {
 public:
  explicit LogReader(const std::string& path) : path_(path) {
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    absl::StatusOr<Fd> fifo = OpenFile(path, O_RDONLY | O_NONBLOCK);
    EXPECT_OK(fifo);
    if (fifo.ok()) fifo_ = *std::move(fifo);
  }
  // Whether somebody who opened it to write has closed it: only then it can end.
  bool released() const {
    pollfd fifo = {.fd = fifo_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&fifo, 1, 0) == 1 && (fifo.revents & POLLHUP) != 0;
  }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  Fd fifo_;
};

// A file system of 4 MiB over a directory.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& path) : path_(path) {
    EXPECT_EQ(::mount("small", path.c_str(), "tmpfs", 0, "size=4m"), 0);
  }
  ~SmallDisk() { EXPECT_EQ(::umount2(path_.c_str(), MNT_DETACH), 0); }

 private:
  const std::string path_;
};

TEST_F(BadInput, AnyTextIsATaskId) {
  for (const std::string& id :
       {std::string("../../etc/passwd"), std::string("a/../b"), std::string("line\nbreak"),
        std::string("nul\0inside", 10), std::string(4096, 'x'), std::string("\xC3\xA9t\xC3\xA9")}) {
    nomad::TaskConfig config = True();
    config.set_id(id);
    EXPECT_EQ(RunToEnd(config), 0);
  }
  nomad::TaskConfig config = True();
  config.set_id("");
  ExpectRefused(config, "task id: is empty");
  config.set_id(std::string(4097, 'x'));
  ExpectRefused(config, "task id: 4097 bytes are too long");
}

TEST_F(BadInput, ATaskNameIsOneDirectory) {
  for (const std::string& name :
       {std::string(".."), std::string("."), std::string("a/b"), std::string("../agent"),
        std::string("line\nbreak"), std::string("nul\0inside", 10), std::string()}) {
    nomad::TaskConfig config = True();
    config.set_name(name);
    ExpectRefused(config, "task name");
    config = True();
    config.set_alloc_id(name);
    ExpectRefused(config, "alloc_id");
  }
  nomad::TaskConfig config = True();
  config.set_name(std::string(250, 'n'));
  ExpectRefused(config, "a cgroup's name at most");
  for (const std::string name : {"with spaces", "back\\slash", "tab\there", "*?[x]$(id)", "-rf"}) {
    ASSERT_OK(host_.MakeTaskDirs(name));
    config = host_.Config(kId, "test -d /local && test -r /proc/self/cgroup");
    config.set_name(name);
    EXPECT_EQ(RunToEnd(config), 0) << name;
  }
}

TEST_F(BadInput, TenThousandVariablesArrive) {
  nomad::TaskConfig config = host_.Config(kId, "test $(env | grep -c ^VARIABLE_) = 10000");
  for (int i = 0; i < 10'000; ++i) {
    (*config.mutable_env())[absl::StrCat("VARIABLE_", i)] = absl::StrCat("value of ", i);
  }
  EXPECT_EQ(RunToEnd(config), 0);
}

TEST_F(BadInput, WhatExecCannotTakeIsSaidWithTheLimit) {
  nomad::TaskConfig config = True();
  (*config.mutable_env())["BIG"] = std::string(200 << 10, 'x');
  ExpectRefused(config, "env 'BIG': 204804 bytes, but Linux allows 131071");
  (*config.mutable_env())["BIG"] = std::string(131071 - 4, 'x');  // with "BIG="
  EXPECT_EQ(RunToEnd(config), 0);

  (*config.mutable_env())["BIG"] = std::string(64 << 20, 'x');
  ExpectRefused(config, "env 'BIG'");
  config.clear_env();
  for (int i = 0; i < 100; ++i) {
    (*config.mutable_env())[absl::StrCat("BIG_", i)] = std::string(100 << 10, 'x');
  }
  ExpectRefused(config, "environment (104 variables) and arguments take");

  // str32, array32: one argument of 256 KiB.
  config = True();
  const std::string argument(256 << 10, 'x');
  config.set_msgpack_driver_config(
      absl::StrCat("\x82\xa7"
                   "command\xa9/bin/true\xa4"
                   "args\x91\xdb",
                   absl::string_view("\x00\x04\x00\x00", 4), argument));
  EXPECT_THAT(TryStart(config), FailedWith(HasSubstr("args")));
}

TEST_F(BadInput, AMessageBeyondTheTransportsLimitEndsOnlyItself) {
  nomad::TaskConfig config = True();
  (*config.mutable_env())["BIG"] = std::string(257 << 20, 'x');
  EXPECT_THAT(TryStart(config), FailedWith(HasSubstr("larger than max")));
  EXPECT_EQ(RunToEnd(True()), 0);
}

TEST_F(BadInput, NulAndEqualsSignsInTheEnvironment) {
  nomad::TaskConfig config = True();
  (*config.mutable_env())["A"] = std::string("x\0y", 3);
  ExpectRefused(config, "env 'A': contains a NUL byte");
  config.clear_env();
  (*config.mutable_env())["A=B"] = "c";
  ExpectRefused(config, "env 'A=B'");
}

TEST_F(BadInput, BytesThatAreNoUtf8) {
  nomad::TaskConfig config = True();
  (*config.mutable_env())["A"] = "\xff\xfe";
  EXPECT_FALSE(TryStart(config).ok());  // by the transport: Nomad cannot send it either
  ExpectRefused(host_.Config(kId, "/bin/\xff", {}), "command: contains bytes that are not UTF-8");
  ExpectRefused(host_.Config(kId, "\xff"), "element 1: contains bytes that are not UTF-8");
}

TEST_F(BadInput, AllocDirs) {
  nomad::TaskConfig config = True();
  for (const std::string path : {"", "/", "relative", "/a/../b", "/a//b", "/a/"}) {
    config.set_alloc_dir(path);
    ExpectRefused(config, "alloc_dir");
  }
  config.set_alloc_dir(host_.dir() + "/missing");
  ExpectRefused(config, host_.dir() + "/missing: No such file or directory");
  ASSERT_OK(WriteFileAtomic(host_.dir() + "/file", ""));
  config.set_alloc_dir(host_.dir() + "/file");
  ExpectRefused(config, host_.dir() + "/file: Not a directory");
  // Nomad's data_dir may be reached through a link.
  std::filesystem::create_directory_symlink(host_.dir() + "/allocs", host_.dir() + "/link");
  config.set_alloc_dir(host_.dir() + "/link");
  EXPECT_EQ(RunToEnd(config), 0);
}

// Every task of an allocation may write in its alloc directory, whatever its driver.
TEST_F(BadInput, LinksInsideTheAllocationDoNotLeadOut) {
  const std::string logs = host_.Logs();
  ASSERT_TRUE(std::filesystem::remove(logs));
  std::filesystem::create_directory_symlink("/root", logs);
  ExpectRefused(True(), "mount /alloc/logs");
  ASSERT_TRUE(std::filesystem::remove(logs));
  ASSERT_OK(MakeDirs(logs));

  nomad::TaskConfig config = True();
  config.set_stdout_path(logs + "/.agent.stdout.fifo");
  ASSERT_OK(WriteFileAtomic(host_.dir() + "/victim", ""));
  std::filesystem::create_symlink(host_.dir() + "/victim", config.stdout_path());
  ExpectRefused(config, "stdout: open " + config.stdout_path());
}

TEST_F(BadInput, OutputPaths) {
  nomad::TaskConfig config = host_.Config(kId, "/bin/echo", {"hello"});
  for (const std::string path : {"", "relative", "/dev/../etc"}) {
    config.set_stdout_path(path);
    ExpectRefused(config, "stdout_path");
  }
  config.set_stdout_path(host_.dir());
  ExpectRefused(config, "stdout: open " + host_.dir() + ": Is a directory");
  config.set_stdout_path(host_.dir() + "/missing");
  ExpectRefused(config, "stdout: open " + host_.dir() + "/missing: No such file or directory");
  config.set_stdout_path(host_.dir() + "/file");
  ASSERT_OK(WriteFileAtomic(config.stdout_path(), "before\n"));
  EXPECT_EQ(RunToEnd(config), 0);
  EXPECT_THAT(ReadFile(config.stdout_path()).value_or(""), "before\nhello\n");
}

TEST_F(BadInput, AFifoThatNobodyReadsHoldsUpNeitherStartNorEnd) {
  nomad::TaskConfig config = host_.Config(kId, "/bin/echo", {"hello"});
  config.set_stdout_path(host_.dir() + "/fifo");
  ASSERT_EQ(::mkfifo(config.stdout_path().c_str(), 0600), 0);
  EXPECT_EQ(RunToEnd(config), 0);
}

TEST_F(BadInput, AStartThatFailsReleasesTheReadersOfItsLogs) {
  nomad::TaskConfig unknown_user = True();
  unknown_user.set_user("no-such-user");
  nomad::TaskConfig no_id = True();
  no_id.set_id("");
  for (nomad::TaskConfig* config : {&unknown_user, &no_id}) {
    const LogReader out(host_.dir() + "/out-" + config->user());
    const LogReader err(host_.dir() + "/err-" + config->user());
    config->set_stdout_path(out.path());
    config->set_stderr_path(err.path());
    ASSERT_FALSE(out.released());
    EXPECT_FALSE(TryStart(*config).ok());
    EXPECT_TRUE(out.released());
    EXPECT_TRUE(err.released());
  }
}

TEST_F(BadInput, Resources) {
  nomad::TaskConfig config = True();
  auto& resources = *config.mutable_resources();
  auto& memory = *resources.mutable_allocated_resources()->mutable_memory();
  memory.set_memory_mb(-1);
  ExpectRefused(config, "resources.memory: -1 MB");
  memory.set_memory_mb(int64_t{1} << 62);
  ExpectRefused(config, "resources.memory: 4611686018427387904 MB");
  memory.set_memory_mb(64);
  memory.set_memory_max_mb(-2);
  ExpectRefused(config, "resources.memory_max: -2 MB");
  memory.set_memory_max_mb(int64_t{1} << 42);
  EXPECT_EQ(RunToEnd(config), 0);
  memory.set_memory_max_mb(-1);
  resources.mutable_linux_resources()->set_cpu_shares(0);
  EXPECT_EQ(RunToEnd(config), 0);
  resources.mutable_linux_resources()->set_cpu_shares(int64_t{1} << 62);
  EXPECT_EQ(RunToEnd(config), 0);
  resources.mutable_linux_resources()->set_cpu_shares(-1);
  ExpectRefused(config, "resources.cpu: -1 MHz");
  // { "command": "/bin/true", "pids_limit": 2^40 }
  config = True();
  config.set_msgpack_driver_config(
      absl::StrCat("\x82\xa7"
                   "command\xa9/bin/true\xaapids_limit\xcf",
                   absl::string_view("\x00\x00\x01\x00\x00\x00\x00\x00", 8)));
  ExpectRefused(config, "pids_limit: 1099511627776 is too large");
}

TEST_F(BadInput, ACpusetOutsideTheCgroupMount) {
  nomad::TaskConfig config = True();
  for (const std::string& path : {host_.dir(), std::string("/sys/fs/cgroup/../../../tmp"),
                                  std::string("/sys/fs/cgroupx"), std::string("relative")}) {
    config.mutable_resources()->mutable_linux_resources()->set_cpuset_cgroup(path);
    ExpectRefused(config, "cpuset_cgroup '" + path + "'");
  }
}

TEST_F(BadInput, NetworkNamespaces) {
  nomad::TaskConfig config = True();
  config.mutable_network_isolation_spec()->set_mode(nomad::NetworkIsolationSpec::GROUP);
  const std::string fifo = host_.dir() + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& path :
       {std::string("/etc/passwd"), std::string("/proc/self/ns/mnt"), std::string("/proc"), fifo}) {
    config.mutable_network_isolation_spec()->set_path(path);
    ExpectRefused(config, "join network namespace " + path + ": it is no network namespace");
  }
}

TEST_F(BadInput, UsersThatAreNobody) {
  nomad::TaskConfig config = True();
  for (const std::string user : {"no-such-user", "nobody:no-such-group", "nobody:", ":", "-1",
                                 "4294967296", "nomad-", "a b"}) {
    config.set_user(user);
    ExpectRefused(config, "not known on this host");
  }
  // setresuid(-1) would change nothing, and what starts the payload is root.
  for (const std::string user : {"4294967295", "nobody:4294967295", "nomad-4294967295"}) {
    config.set_user(user);
    ExpectRefused(config, "4294967295 is no user or group id");
  }
  for (const std::string user : {"0", "nomad-0", "nobody:0", " 0", "root"}) {
    config.set_user(user);
    ExpectRefused(config, "allow_root");
  }
}

TEST_F(BadInput, VolumesThatCannotBe) {
  nomad::TaskConfig config = True();
  auto& volume = *config.add_mounts();
  volume.set_host_path(host_.dir());
  for (const std::string path : {"", "/", "relative", "/../etc", "/a//b", "/data/"}) {
    volume.set_task_path(path);
    ExpectRefused(config, "destination: ");
  }
  volume.set_task_path("/data");
  volume.set_host_path(host_.dir() + "/missing");
  ExpectRefused(config, host_.dir() + "/missing: No such file or directory");
}

// Recoverable, and what runs goes on; also for a plugin that starts on the full disk.
TEST_F(BadInput, AFullStateDirectory) {
  ASSERT_OK(host_.Quit());
  {
    const SmallDisk disk(host_.StateDir());
    ASSERT_OK(host_.Launch());
    Start("until [ -e /local/go ]; do sleep 0.1; done");
    const nomad::TaskHandle running = handle_;
    const std::string fill = host_.StateDir() + "/fill";
    std::ofstream(fill) << std::string(8 << 20, 'x');

    const nomad::TaskConfig other = host_.Config(kOther, "/bin/true", {});
    const grpc::Status full = TryStart(other);
    EXPECT_THAT(full,
                FailedWith(AllOf(HasSubstr("state_dir " + host_.StateDir()),
                                 HasSubstr("bytes are free"), HasSubstr("a task needs 1048576"))));
    EXPECT_THAT(full.error_details(), HasSubstr("RecoverableError"));
    EXPECT_EQ(host_.TasksOnDisk(), 1);

    Relaunch();
    EXPECT_THAT(host_.Recover(running), Succeeded());
    ASSERT_OK(WriteFileAtomic(host_.Local("go"), "", 0644));
    EXPECT_EQ(Wait().result().exit_code(), 0);
    EXPECT_THAT(host_.Destroy(kId), Succeeded());
    EXPECT_EQ(host_.TasksOnDisk(), 0);

    ASSERT_TRUE(std::filesystem::remove(fill));
    EXPECT_EQ(RunToEnd(other), 0);
    ASSERT_OK(host_.Quit());
  }
  ASSERT_OK(host_.Launch());
}

// Nomad drops a driver whose SetConfig fails until it is restarted itself, and only its log says
// why.
TEST_F(BadInput, AStateDirectoryThatCannotBeUsedAtTheStartIsToldAndMendedWithoutARestart) {
  ASSERT_OK(host_.Quit());
  const std::string state = host_.StateDir();
  struct Case {
    const char* trouble;
    std::function<void()> harm;
    std::function<void()> mend;
  };
  for (const Case& broken : std::vector<Case>{
           {"is no directory",
            [&] {
              ASSERT_OK(RemoveTree(state));
              ASSERT_OK(WriteFileAtomic(state, ""));
            },
            [&] { ASSERT_OK(RemoveTree(state)); }},
           {"belongs to another user than root",
            [&] { ASSERT_EQ(::chown(state.c_str(), 65534, 65534), 0); },
            [&] { ASSERT_EQ(::chown(state.c_str(), 0, 0), 0); }},
           {"is on a read-only file system",
            [&] {
              ASSERT_OK(RemoveTree(state));
              ASSERT_OK(MakeDirs(state));
              ASSERT_EQ(::mount("small", state.c_str(), "tmpfs", MS_RDONLY, "size=4m"), 0);
            },
            [&] { ASSERT_EQ(::mount(nullptr, state.c_str(), nullptr, MS_REMOUNT, ""), 0); }},
           {"is on a full disk",
            [&] { std::ofstream(state + "/fill") << std::string(8 << 20, 'x'); },
            [&] { ASSERT_TRUE(std::filesystem::remove(state + "/fill")); }}}) {
    SCOPED_TRACE(broken.trouble);
    broken.harm();
    ASSERT_OK(host_.Launch());
    nomad::FingerprintResponse health;
    grpc::ClientContext context;
    const auto stream = host_.plugin().driver().Fingerprint(&context, {});
    ASSERT_TRUE(stream->Read(&health));
    context.TryCancel();
    EXPECT_EQ(health.health(), nomad::FingerprintResponse::UNHEALTHY);
    EXPECT_EQ(health.health_description(), absl::StrCat("state_dir ", state, " ", broken.trouble));
    const LogReader log(absl::StrCat(host_.dir(), "/", broken.trouble));
    nomad::TaskConfig config = True();
    config.set_stdout_path(log.path());
    const grpc::Status refused = TryStart(config);
    EXPECT_THAT(refused, FailedWith(HasSubstr("state_dir " + state)));
    EXPECT_THAT(refused.error_details(), HasSubstr("RecoverableError"));
    EXPECT_TRUE(log.released());
    broken.mend();
    EXPECT_EQ(RunToEnd(True()), 0);
    ASSERT_OK(host_.Quit());
  }
  EXPECT_EQ(::umount2(state.c_str(), MNT_DETACH), 0);
  ASSERT_OK(host_.Launch());
}

TEST_F(BadInput, ATaskIsRecoveredFromAStateDirectoryThatBecameReadOnly) {
  ASSERT_OK(host_.Quit());
  {
    const SmallDisk disk(host_.StateDir());
    ASSERT_OK(host_.Launch());
    Start("until [ -e /local/go ]; do sleep 0.1; done");
    const nomad::TaskHandle running = handle_;
    ASSERT_OK(host_.Crash());
    // Over itself: the supervisor has files open for writing, so the first mount stays.
    const std::string state = host_.StateDir();
    ASSERT_EQ(::mount(state.c_str(), state.c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(::mount(nullptr, state.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr),
              0);
    ASSERT_OK(host_.Launch());
    EXPECT_THAT(host_.Recover(running), Succeeded());
    EXPECT_THAT(TryStart(host_.Config(kOther, "/bin/true", {})),
                FailedWith(HasSubstr("is on a read-only file system")));
    ASSERT_EQ(::umount2(state.c_str(), MNT_DETACH), 0);
    ASSERT_OK(WriteFileAtomic(host_.Local("go"), "", 0644));
    EXPECT_EQ(Wait().result().exit_code(), 0);
    EXPECT_THAT(host_.Destroy(kId), Succeeded());
    EXPECT_EQ(RunToEnd(host_.Config(kOther, "/bin/true", {})), 0);
    ASSERT_OK(host_.Quit());
  }
  ASSERT_OK(host_.Launch());
}

}  // namespace
}  // namespace jenkins_agent
