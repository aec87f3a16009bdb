#include "driver/task/host_load.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/recoverable.h"
#include "driver/task/disk_space.h"
#include "driver/task/state_dir.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// A directory with made-up files of /proc or /sys.
class FakeFiles {
 public:
  void Write(const std::string& path, const std::string& content) {
    const std::filesystem::path full = root() + "/" + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << content;
  }
  std::string root() const { return directory_.path(); }

 private:
  TempDir directory_;
};

TEST(HostLoad, FactsComeFromProc) {
  FakeFiles proc;
  proc.Write("loadavg", "10.68 5.96 3.33 14/151 14076\n");
  proc.Write("sys/kernel/threads-max", "192730\n");
  proc.Write("sys/kernel/pid_max", "32768\n");
  proc.Write("meminfo", "MemTotal:       24683752 kB\nMemAvailable:   20160512 kB\n");
  ASSERT_OK_AND_ASSIGN(const HostLoad load, ReadHostLoad(proc.root()));
  EXPECT_EQ(load.threads, 151u);
  EXPECT_EQ(load.max_threads, 32768u);
  EXPECT_EQ(load.available_bytes, uint64_t{20160512} << 10);
  proc.Write("loadavg", "10.68 5.96\n");
  EXPECT_THAT(ReadHostLoad(proc.root()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("loadavg")));
}

TEST(HostLoad, ThisHostHasFacts) {
  ASSERT_OK_AND_ASSIGN(const HostLoad load, ReadHostLoad());
  EXPECT_GT(load.threads, 1u);
  EXPECT_GT(load.max_threads, load.threads);
  EXPECT_GT(load.available_bytes, 0u);
}

TEST(HostLoad, ThreadsThatAreUsedUpAreToldInNumbersAndRecoverably) {
  const HostLoad roomy = {.threads = 31'936, .max_threads = 32'000, .available_bytes = 1024 * kMiB};
  EXPECT_OK(CheckHostLoad(roomy, 0));
  const HostLoad full = {.threads = 31'937, .max_threads = 32'000, .available_bytes = 1024 * kMiB};
  const absl::Status refused = CheckHostLoad(full, 0);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("host threads 31937 of 32000 in use")));
  EXPECT_TRUE(IsRecoverable(refused));
}

TEST(HostLoad, MemoryIsRefusedOnlyWhenItIsExhausted) {
  const HostLoad low = {.threads = 1, .max_threads = 32'000, .available_bytes = 100 * kMiB};
  EXPECT_OK(CheckHostLoad(low, 64 * kMiB));  // that one cannot use more than there is
  for (const int64_t memory : {int64_t{0}, int64_t{8192} << 20}) {
    const absl::Status refused = CheckHostLoad(low, memory);
    EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                  "host memory: 100 MiB are available; a start needs 128 MiB"));
    EXPECT_TRUE(IsRecoverable(refused));
  }
  // More than is free is Nomad's to schedule.
  const HostLoad enough = {.threads = 1, .max_threads = 32'000, .available_bytes = 128 * kMiB};
  EXPECT_OK(CheckHostLoad(enough, int64_t{8192} << 20));
}

TEST(HostLoad, AnIoWeightNeedsADiskThatHeedsIt) {
  FakeFiles sys;
  sys.Write("block/vda/queue/scheduler", "[none] mq-deadline bfq\n");
  sys.Write("block/sda/queue/scheduler", "none [mq-deadline] bfq\n");
  EXPECT_THAT(CheckIoWeight(sys.root()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("io_weight: "), HasSubstr("none of sda, vda has"))));
  EXPECT_FALSE(IsRecoverable(CheckIoWeight(sys.root())));
  sys.Write("block/sdb/queue/scheduler", "none mq-deadline [bfq]\n");
  EXPECT_OK(CheckIoWeight(sys.root()));
}

TEST(HostLoad, IoCostHeedsAWeightToo) {
  FakeFiles sys;
  sys.Write("fs/cgroup/io.cost.qos", "8:0 enable=0 ctrl=auto\n");
  EXPECT_THAT(CheckIoWeight(sys.root()), Not(IsOk()));
  sys.Write("fs/cgroup/io.cost.qos", "8:0 enable=1 ctrl=auto\n");
  EXPECT_OK(CheckIoWeight(sys.root()));
}

TEST(DiskSpace, AFullDiskIsToldWithTheDirectorysName) {
  // procfs has no blocks at all.
  const absl::Status full = CheckDiskSpace("alloc_dir", "/proc");
  EXPECT_THAT(full, StatusIs(absl::StatusCode::kResourceExhausted,
                             HasSubstr("alloc_dir /proc: the disk is full: 0 bytes are free")));
  EXPECT_TRUE(IsRecoverable(full));
  EXPECT_OK(CheckDiskSpace("state_dir", TempDir().path()));
}

TEST(StateDir, WhatIsWrongWithItIsAFixedText) {
  const TempDir dir;
  const std::string path = dir.path() + "/a/b";
  EXPECT_EQ(StateDirTrouble(path), "");  // it can be made
  EXPECT_OK(CheckStateDir(path));
  ASSERT_OK(WriteFileAtomic(dir.path() + "/a", ""));
  EXPECT_EQ(StateDirTrouble(path), "is no directory");
  EXPECT_EQ(StateDirTrouble(dir.path() + "/a"), "is no directory");
  const absl::Status refused = CheckStateDir(path);
  EXPECT_EQ(refused.message(), absl::StrCat("state_dir ", path, " is no directory"));
  EXPECT_TRUE(IsRecoverable(refused));
  EXPECT_EQ(StateDirTrouble("/proc"), "is on a full disk");
}

TEST(StateDir, IsRootsOwn) {
  REQUIRES_ROOT();
  const TempDir dir;
  ASSERT_EQ(::chown(dir.path().c_str(), 65534, 65534), 0);
  EXPECT_EQ(StateDirTrouble(dir.path()), "belongs to another user than root");
  EXPECT_EQ(StateDirTrouble(dir.path() + "/below"), "");
}

}  // namespace
}  // namespace jenkins_agent
