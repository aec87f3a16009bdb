// Who may die, and in which order; and state that is not what it should be. Nomad's calls as in
// nomad-driver-protocol.md 5.5, 7.1-7.4 and appendix C6-C10.
#include <signal.h>

#include <filesystem>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/process.h"
#include "proto/supervisor.pb.h"
#include "tests/contract/task_test.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kSleep[] = "exec sleep 600";
constexpr char kUntilToldToGo[] = "until [ -e /local/go ]; do sleep 0.02; done; exit 5";

class Recovery : public TaskTest {
 protected:
  pb::TaskRecord State() const {
    pb::TaskRecord record;
    EXPECT_TRUE(record.ParseFromString(handle_.driver_state()));
    return record;
  }
  nomad::TaskHandle HandleWith(const std::string& driver_state) const {
    nomad::TaskHandle handle = handle_;
    handle.set_driver_state(driver_state);
    return handle;
  }
  std::string File(const std::string& name) const { return host_.TaskDir(kId) + "/" + name; }
  void KillSupervisor() {
    const pid_t supervisor = State().supervisor_pid();
    ASSERT_EQ(::kill(supervisor, SIGKILL), 0);
    ASSERT_TRUE(WaitFor([&] { return !ProcessStartTime(supervisor).ok(); }));
  }
};

// ---- who dies ----

TEST_F(Recovery, AnAgentThatWasKilledFindsThePluginWithItsTasks) {
  Start(kUntilToldToGo);
  const std::string pid = Pid();
  host_.plugin().CrashAgent();
  host_.plugin().Reattach();
  handle_.mutable_config()->clear_msgpack_driver_config();
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Pid(), pid);

  host_.plugin().CrashAgent();
  ASSERT_OK(WriteFileAtomic(host_.Local("go"), "", 0644));
  ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(File("exit.pb")); }));
  host_.plugin().Reattach();
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), 5);
}

TEST_F(Recovery, AnAgentThatStoppedInOrderFindsItsTasks) {
  Start(kSleep);
  const std::string pid = Pid();
  ASSERT_OK(host_.Quit());
  ASSERT_OK(host_.Launch());
  handle_.mutable_config()->clear_msgpack_driver_config();
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Pid(), pid);
}

TEST_F(Recovery, AgentAndPluginKilledAtOnceLoseNothing) {
  Start(kSleep);
  const std::string pid = Pid();
  host_.plugin().CrashAgent();
  Relaunch();
  handle_.mutable_config()->clear_msgpack_driver_config();
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Pid(), pid);
  ASSERT_THAT(host_.Stop(kId, "", 10'000), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), 143);
}

TEST_F(Recovery, ASupervisorKilledUnderThePluginEndsItsTaskOnly) {
  Start(kSleep);
  nomad::TaskHandle other;
  ASSERT_THAT(host_.Start(host_.Config(kOther, kUntilToldToGo), &other), Succeeded());
  KillSupervisor();
  const nomad::WaitTaskResponse end = Wait();
  EXPECT_EQ(end.result().exit_code(), -1);
  EXPECT_THAT(end.err(), AllOf(HasSubstr("supervisor"), HasSubstr("killed")));
  ASSERT_OK(WriteFileAtomic(host_.Local("go"), "", 0644));
  EXPECT_EQ(Wait(kOther).result().exit_code(), 5);
}

TEST_F(Recovery, ASupervisorKilledWhileThePluginWasAwayIsTold) {
  Start(kSleep);
  ASSERT_OK(host_.Crash());
  KillSupervisor();
  ASSERT_OK(host_.Launch());
  EXPECT_THAT(host_.Leftovers(), IsEmpty());
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  const nomad::WaitTaskResponse end = Wait();
  EXPECT_EQ(end.result().exit_code(), -1);
  EXPECT_THAT(end.err(), HasSubstr("supervisor"));
}

TEST_F(Recovery, AnExitWhileThePluginWasAwayIsKeptUntilItIsAskedFor) {
  Start(kUntilToldToGo);
  ASSERT_OK(host_.Crash());
  ASSERT_OK(WriteFileAtomic(host_.Local("go"), "", 0644));
  ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(File("exit.pb")); }));
  ASSERT_TRUE(WaitFor([&] { return host_.Processes().empty(); }));
  ASSERT_OK(host_.Launch());
  Relaunch();
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), 5);
}

TEST_F(Recovery, IsHarmlessTwiceAndAtTheSameTime) {
  Start(kSleep);
  const std::string pid = Pid();
  Relaunch();
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] { EXPECT_THAT(host_.Recover(handle_), Succeeded()); });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(Pid(), pid);
}

// Nomad asks seconds to minutes after the plugin's start, or never.
TEST_F(Recovery, ATaskThatNobodyAskedForYetIsLeftAlone) {
  Start(kSleep);
  const std::string pid = Pid();
  Relaunch();
  Relaunch();
  nomad::TaskHandle other;
  ASSERT_THAT(host_.Start(host_.Config(kOther, kSleep), &other), Succeeded());
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Pid(), pid);
}

// ---- state that is not what it should be ----

TEST_F(Recovery, AfterARebootTheTaskIsGoneAndSoIsItsDirectory) {
  Start(kSleep);
  pb::TaskRecord earlier = State();
  ASSERT_THAT(host_.Destroy(kId), Succeeded());
  earlier.set_boot_id("00000000-0000-0000-0000-000000000000");
  ASSERT_OK(MakeDirs(File("jar"), 0700));
  ASSERT_OK(WriteFileAtomic(File("handle.pb"), earlier.SerializeAsString()));
  Relaunch();
  EXPECT_FALSE(std::filesystem::exists(File("handle.pb")));
  EXPECT_THAT(host_.Recover(HandleWith(earlier.SerializeAsString())),
              FailedWith(HasSubstr("rebooted")));
}

TEST_F(Recovery, DamagedOrForeignDriverStateIsAnErrorAndOthersAreUnharmed) {
  Start(kSleep);
  const std::string pid = Pid();
  Relaunch();
  const std::string good = handle_.driver_state();
  pb::TaskRecord newer = State();
  newer.set_version(99);
  pb::TaskRecord elsewhere = State();
  elsewhere.set_task_dir("/etc");
  pb::TaskRecord foreign = State();
  foreign.set_task_id(kOther);
  foreign.set_task_dir(host_.TaskDir(kOther));
  const std::pair<std::string, const char*> cases[] = {
      {"", "damaged"},
      {good.substr(0, good.size() / 2), "damaged"},
      {"{\"ReattachConfig\": {}}", "damaged"},
      {std::string(1 << 20, '\xff'), "damaged"},
      {newer.SerializeAsString(), "version 99"},
      {elsewhere.SerializeAsString(), "'/etc'"},
      {foreign.SerializeAsString(), "belongs to task"},
  };
  for (const auto& [state, message] : cases) {
    EXPECT_THAT(host_.Recover(HandleWith(state)), FailedWith(HasSubstr(message)));
  }
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Pid(), pid);
}

TEST_F(Recovery, ADamagedExitRecordIsAnErrorAndNoSuccess) {
  Start("exit 5");
  EXPECT_EQ(Wait().result().exit_code(), 5);
  for (const char* bytes : {"", "garbage", "\x08\x63"}) {
    ASSERT_OK(WriteFileAtomic(File("exit.pb"), bytes));
    Relaunch();
    EXPECT_THAT(host_.Recover(handle_), FailedWith(HasSubstr("exit.pb")));
  }
}

TEST_F(Recovery, ADamagedHandleOnDiskHindersNeitherRecoveryNorRemoval) {
  Start(kSleep);
  const std::string pid = Pid();
  for (const char* bytes : {"", "garbage", "\x08\x63"}) {
    ASSERT_OK(WriteFileAtomic(File("handle.pb"), bytes));
    Relaunch();
    ASSERT_THAT(host_.Recover(handle_), Succeeded());
    EXPECT_EQ(Pid(), pid);
  }
  Relaunch();
  ASSERT_THAT(host_.Destroy(kId), Succeeded());
  EXPECT_THAT(host_.Leftovers(), IsEmpty());
}

TEST_F(Recovery, ASupervisorThatCannotBeReachedIsAnErrorAndDestroyEndsIt) {
  for (const bool plain_file : {false, true}) {
    Start(kSleep);
    ASSERT_TRUE(std::filesystem::remove(File("control.sock")));
    if (plain_file) {
      ASSERT_OK(WriteFileAtomic(File("control.sock"), "not a socket"));
    }
    Relaunch();
    EXPECT_THAT(host_.Recover(handle_), FailedWith(AllOf(HasSubstr("runs but cannot be reached"),
                                                         HasSubstr("control.sock"))));
    ASSERT_THAT(host_.Destroy(kId), Succeeded());
    EXPECT_THAT(host_.Leftovers(), IsEmpty());
  }
}

// As one that was killed and is not dead yet: it has closed its sockets, the kernel still lists it.
TEST_F(Recovery, ASupervisorThatDiesWhileItIsLookedForIsLost) {
  Start(kSleep);
  ASSERT_TRUE(std::filesystem::remove(File("control.sock")));
  Relaunch();
  std::future<grpc::Status> recovered =
      std::async(std::launch::async, [&] { return host_.Recover(handle_); });
  // Time to find the supervisor out of reach; if it was too short, it is dead already.
  EXPECT_EQ(recovered.wait_for(std::chrono::milliseconds(300)), std::future_status::timeout);
  ASSERT_EQ(::kill(State().supervisor_pid(), SIGKILL), 0);
  ASSERT_THAT(recovered.get(), Succeeded());
  EXPECT_THAT(Wait().err(), HasSubstr("was killed"));
}

TEST_F(Recovery, AStoppedSupervisorIsFollowedWhenItGoesOn) {
  Start(kUntilToldToGo);
  ASSERT_EQ(::kill(State().supervisor_pid(), SIGSTOP), 0);
  Relaunch();
  EXPECT_THAT(host_.Recover(handle_), Succeeded());
  ASSERT_EQ(::kill(State().supervisor_pid(), SIGCONT), 0);
  ASSERT_OK(WriteFileAtomic(host_.Local("go"), "", 0644));
  EXPECT_EQ(Wait().result().exit_code(), 5);
}

TEST_F(Recovery, AMissingTaskDirectoryIsAnErrorWhileTheTaskRunsAndAnUnknownExitAfter) {
  Start(kSleep);
  ASSERT_OK(host_.Crash());
  std::filesystem::remove_all(host_.TaskDir(kId));
  ASSERT_OK(host_.Launch());
  EXPECT_THAT(host_.Recover(handle_), FailedWith(HasSubstr("runs but cannot be reached")));
  KillSupervisor();
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), -1);
}

}  // namespace
}  // namespace jenkins_agent
