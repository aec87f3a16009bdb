// What one task does to the others when it takes all that it can get: it is held by its own limits,
// a neighbour and the host go on.
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "driver/base/file.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kMemory = 48 * kMiB;
constexpr int64_t kPids = 40;

// Forks, touches memory and its own /dev/shm in each round, and counts the rounds.
constexpr char kHeartbeat[] =
    "n=0; until [ -e end ]; do n=$((n+1)); echo $n >/dev/shm/beat && cp /dev/shm/beat beat.new && "
    "mv beat.new beat && sleep 0.01 || exit 9; done; exit 5";

class Neighbour : public SupervisorTest {
 protected:
  void SetUp() override {
    SupervisorTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_OK_AND_ASSIGN(hierarchy_, cgroups::Hierarchy::Detect());
    ASSERT_OK(Start(Shell(kHeartbeat)));
    neighbour_ = Reconnect();
    ASSERT_NE(neighbour_, nullptr);
    ASSERT_TRUE(GoesOn());
  }

  // A second task beside the heartbeat; its stderr is in the file "bomb.err".
  void StartBomb(const std::string& script, uint64_t tmpfs_bytes = 0) {
    ASSERT_OK(MakeDirs(directory() + "/bomb"));
    ASSERT_OK(WriteFileAtomic(directory() + "/bomb.err", ""));
    pb::LaunchSpec spec = Shell(script);
    spec.set_task_id("alloc/bomb/12345678");
    spec.set_task_dir(directory() + "/bomb");
    spec.mutable_cgroup()->set_name(spec.cgroup().name() + ".bomb");
    spec.mutable_cgroup()->set_memory_bytes(kMemory);
    spec.mutable_cgroup()->set_pids(kPids);
    for (pb::MountSpec& mount : *spec.mutable_sandbox()->mutable_mounts()) {
      const bool scratch = mount.target() == "/dev/shm" || mount.target() == "/tmp";
      if (scratch) mount.set_size_bytes(tmpfs_bytes);
    }
    spec.mutable_output()->set_stdout_path("/dev/null");
    spec.mutable_output()->set_stderr_path(directory() + "/bomb.err");
    ASSERT_OK_AND_ASSIGN(bomb_, Start(spec));
  }
  cgroups::Usage BombUsage() { return UsageOf(bomb_); }
  cgroups::Usage UsageOf(const pb::TaskStatus& status) {
    const auto cgroup = Open(status);
    const auto usage = cgroup.ok() ? cgroup->ReadUsage() : cgroup.status();
    EXPECT_OK(usage);
    return usage.value_or(cgroups::Usage());
  }
  uint64_t OomKillsOf(const pb::TaskStatus& status) {
    const auto cgroup = Open(status);
    return cgroup.ok() ? cgroup->OomKills().value_or(0) : 0;
  }
  absl::StatusOr<cgroups::Cgroup> Open(const pb::TaskStatus& status) const {
    return cgroups::Cgroup::Open(hierarchy_,
                                 {status.cgroup_dirs().begin(), status.cgroup_dirs().end()});
  }

  int64_t Beats() const {
    int64_t beats = 0;
    return absl::SimpleAtoi(LocalContent("beat"), &beats) ? beats : 0;
  }
  // The neighbour still does its rounds.
  bool GoesOn() {
    const int64_t before = Beats();
    return Eventually([&] { return Beats() >= before + 20; });
  }
  static bool HostForks() {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    return child > 0 && ::waitpid(child, nullptr, 0) == child;
  }

  void ExpectOthersGoOnAndNothingIsLeft() {
    EXPECT_TRUE(GoesOn());
    EXPECT_TRUE(HostForks());
    watcher().Stop(SIGKILL, std::chrono::milliseconds(0)).IgnoreError();  // it may have ended
    EXPECT_TRUE(watcher().WaitExit());
    for (const std::string& dir : bomb_.cgroup_dirs()) {
      EXPECT_TRUE(Eventually([&] { return !PathExists(dir); })) << dir;
    }
    const pb::TaskStatus status = neighbour_->Status();
    EXPECT_EQ(status.state(), pb::RUNNING);
    EXPECT_EQ(OomKillsOf(status), 0u);
    ASSERT_OK(WriteFileAtomic(Local("end"), ""));
    const auto exit = neighbour_->WaitExit();
    ASSERT_TRUE(exit);
    EXPECT_EQ(exit->exit_code(), 5) << Stderr();
  }

  cgroups::Hierarchy hierarchy_;
  std::unique_ptr<Watcher> neighbour_;
  pb::TaskStatus bomb_;
};

TEST_F(Neighbour, OfAForkBomb) {
  StartBomb("exec perl -e 'fork while 1'");
  EXPECT_TRUE(Eventually([this] { return BombUsage().pids.value_or(0) >= kPids - 4; }));
  EXPECT_LE(BombUsage().pids.value_or(0), static_cast<uint64_t>(kPids) + 1);  // joining is free
  ExpectOthersGoOnAndNothingIsLeft();
}

TEST_F(Neighbour, OfAMemoryBomb) {
  StartBomb("while :; do tail /dev/zero; done");
  EXPECT_TRUE(Eventually([this] { return OomKillsOf(bomb_) >= 3; }));
  EXPECT_LE(BombUsage().memory_peak_bytes.value_or(0), static_cast<uint64_t>(kMemory));
  ExpectOthersGoOnAndNothingIsLeft();
}

TEST_F(Neighbour, OfAFloodOfThePageCache) {
  StartBomb(
      "dd if=/dev/zero of=flood bs=1M count=128 2>/dev/null && cat flood >/dev/null && touch read;"
      "while :; do cat flood >/dev/null; done");
  EXPECT_TRUE(Eventually([this] { return PathExists(Local("read")); }));
  // Cache is given back instead of killing for it.
  EXPECT_LE(BombUsage().memory_peak_bytes.value_or(0), static_cast<uint64_t>(kMemory));
  EXPECT_EQ(OomKillsOf(bomb_), 0u);
  ExpectOthersGoOnAndNothingIsLeft();
}

TEST_F(Neighbour, OfATmpfsThatIsFilled) {
  StartBomb(
      "dd if=/dev/zero of=/dev/shm/fill bs=1M; dd if=/dev/zero of=/tmp/fill bs=1M; touch full;"
      "exec sleep 1000",
      /*tmpfs_bytes=*/8 * kMiB);
  EXPECT_TRUE(Eventually([this] { return PathExists(Local("full")); }));
  const std::string errors = Content("bomb.err");
  EXPECT_THAT(errors, HasSubstr("'/dev/shm/fill': No space left on device"));
  EXPECT_THAT(errors, HasSubstr("'/tmp/fill': No space left on device"));
  EXPECT_EQ(OomKillsOf(bomb_), 0u);
  ExpectOthersGoOnAndNothingIsLeft();
}

TEST_F(Neighbour, OfATmpfsThatIsLargerThanItsMemory) {
  StartBomb("while :; do dd if=/dev/zero of=/dev/shm/fill bs=1M; done",
            /*tmpfs_bytes=*/static_cast<uint64_t>(4 * kMemory));
  // Files in memory cannot be given back: dd dies of them, at last the shell too.
  EXPECT_TRUE(watcher().WaitEvent("out of memory: the kernel killed dd (pid "));
  ExpectOthersGoOnAndNothingIsLeft();
}

}  // namespace
}  // namespace jenkins_agent
